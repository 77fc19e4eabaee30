"""Who may ask, and how often."""

import pytest

from engine.router.api_keys import ApiKey, KeyRing, RateLimits
from engine.router.errors import RouterError
from workbench.errors import ConfigError

ALICE = ApiKey(name="alice", key="sk-a", requests_per_second=2, tokens_per_minute=600)
BOB = ApiKey(name="bob", key="sk-b")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Bearer sk-a", "alice"),
        ("bearer  sk-b ", "bob"),
        ("Bearer sk-c", None),
        ("Basic sk-a", None),
        ("sk-a", None),
        ("Bearer \udcff", None),
        ("", None),
        (None, None),
    ],
)
def test_keys_are_found(header: str | None, name: str | None) -> None:
    found = KeyRing([ALICE, BOB]).find(header)
    assert (found.name if found else None) == name


def test_an_empty_ring_is_open() -> None:
    assert KeyRing().is_open
    assert not KeyRing([BOB]).is_open


def test_requests_and_tokens_are_limited_and_nothing_is_charged_for_a_refusal() -> None:
    limits = RateLimits()
    limits.admit(ALICE, 500, 0.0)
    with pytest.raises(RouterError, match="600 tokens a minute") as tokens:
        limits.admit(ALICE, 200, 0.0)
    assert tokens.value.status == 429
    assert tokens.value.retry_after_s == pytest.approx(10)
    limits.admit(ALICE, 100, 0.0)
    with pytest.raises(RouterError, match="2 requests a second") as requests:
        limits.admit(ALICE, 0, 0.0)
    assert requests.value.headers == {"Retry-After": "1"}
    limits.admit(BOB, 10**9, 0.0)
    limits.admit(None, 10**9, 0.0)


def test_tokens_that_were_not_used_come_back() -> None:
    limits = RateLimits()
    limits.admit(ALICE, 600, 0.0)
    limits.settle(ALICE, 600, 50, 0.0)
    limits.admit(ALICE, 550, 0.0)
    limits.settle(BOB, 5, 0, 0.0)


def test_a_request_larger_than_the_limit_goes_through_once_and_leaves_a_debt() -> None:
    limits = RateLimits()
    limits.admit(ALICE, 1200, 0.0)
    with pytest.raises(RouterError):
        limits.admit(ALICE, 1, 59.0)
    limits.admit(ALICE, 1, 61.0)


def test_bad_keys_are_refused_and_no_key_is_shown() -> None:
    with pytest.raises(ConfigError, match="the name 'a' is given to two"):
        KeyRing([ApiKey(name="a", key="x"), ApiKey(name="a", key="y")])
    with pytest.raises(ConfigError, match="the key is given to two") as twice:
        KeyRing([ApiKey(name="a", key="sk-x"), ApiKey(name="b", key="sk-x")])
    assert "sk-x" not in str(twice.value)
    for wrong in ({"key": ""}, {"key": "a\nb"}, {"burst": 2}, {"requests_per_second": 0}):
        with pytest.raises(ConfigError):
            ApiKey(**{"name": "a", "key": "x"} | wrong)
