"""What a policy sees of a backend: own requests exactly, foreign ones as reported."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.router.backend import Backend, make_backends, root_url
from engine.router.backend_load import BackendLoad
from engine.router.routed_request import RoutedHTTPRequest, read_envelope
from engine.router.settings import PromptSettings, QueueSettings, RouterSettings
from workbench.errors import ConfigError

SETTINGS = RouterSettings(prompt=PromptSettings(block_size=4))


def backend(settings: RouterSettings = SETTINGS) -> Backend:
    made = Backend("http://a:1", settings)
    made.health.check_passed(0.0)
    return made


def request(num_prompt_tokens: int = 8, max_tokens: int = 2) -> RoutedHTTPRequest:
    body = {"prompt": list(range(num_prompt_tokens)), "max_tokens": max_tokens}
    envelope = read_envelope(json.dumps(body).encode())
    return RoutedHTTPRequest("r", "c", "/v1/completions", envelope, SETTINGS.prompt)


def test_own_requests_are_counted_exactly() -> None:
    it, first, second = backend(), request(), request(20, 5)
    it.opened(first)
    it.opened(second)
    assert (it.num_running, it.num_waiting, it.num_outstanding_tokens) == (2, 0, 35)
    it.closed(second)
    assert (it.num_running, it.num_outstanding_tokens) == (1, 10)


def test_requests_from_elsewhere_are_added() -> None:
    it = backend()
    it.opened(request())
    it.reported(BackendLoad(3, 2, 100, 0.5), 1, 10)
    assert (it.num_running, it.num_waiting) == (3, 2)
    assert (it.num_outstanding_tokens, it.kv_cache_usage) == (100, 0.5)
    it.opened(request())  # the report was before this one
    assert it.num_running + it.num_waiting == 6
    assert it.num_outstanding_tokens == 110
    it.reported(None, 2, 20)
    assert (it.num_running, it.num_waiting, it.num_outstanding_tokens) == (2, 0, 20)


@given(before=st.integers(0, 5), now=st.integers(0, 5), said=st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_own_requests_on_their_way_are_never_taken_for_foreign_ones(
    before: int, now: int, said: int
) -> None:
    it = backend()
    for _ in range(now):
        it.opened(request())
    it.reported(BackendLoad(said, 0, said * 10), before, before * 10)
    foreign = it.num_running + it.num_waiting - now
    assert foreign == max(0, said - max(before, now))


def test_the_prefix_is_remembered_until_it_goes_down() -> None:
    it, sent = backend(), request(10)
    keys = sent.block_hashes
    assert it.cached_prefix_tokens(keys) == 0
    it.opened(sent)
    assert it.cached_prefix_tokens(keys) == 8
    it.went_down()
    assert it.cached_prefix_tokens(keys) == 0


def test_room() -> None:
    it = backend(RouterSettings(queue=QueueSettings(max_concurrency=1)))
    assert it.has_slot(0.0)
    it.opened(request())
    assert not it.has_slot(0.0)
    it.closed(request())
    it.pause(5.0)
    assert not it.has_slot(4.9)
    assert it.has_slot(5.0)


def test_a_backend_that_says_it_drains_is_not_offered() -> None:
    it = backend()
    assert it.is_offered
    it.reported(BackendLoad(is_draining=True), 0, 0)
    assert not it.is_offered
    assert it.state(0.0)["state"] == "draining"


@pytest.mark.parametrize(
    ("given_url", "root"),
    [
        ("http://a:1", "http://a:1"),
        ("https://A.example/v1/", "https://a.example"),
        ("http://a:1/models/x/", "http://a:1/models/x"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_urls(given_url: str, root: str) -> None:
    assert root_url(given_url) == root


@pytest.mark.parametrize(
    "bad",
    ["", "a:1", "ftp://a", "http://", "http://a:99999", "http://u@a", "http://a?x=1", "http://a:0"],
)
def test_bad_urls_are_refused_in_one_line(bad: str) -> None:
    with pytest.raises(ConfigError, match="--backend") as error:
        make_backends([bad], SETTINGS)
    assert "\n" not in str(error.value)


def test_no_backend_and_one_named_twice() -> None:
    with pytest.raises(ConfigError, match="needs a backend"):
        make_backends([], SETTINGS)
    with pytest.raises(ConfigError, match="given twice"):
        make_backends(["http://a:1", "http://A:1/v1"], SETTINGS)
    a, b = make_backends(["http://a:1", "http://b:1"], SETTINGS)
    assert a.identity != b.identity == make_backends(["http://b:1"], SETTINGS)[0].identity
