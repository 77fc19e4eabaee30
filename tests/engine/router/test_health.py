"""Ejection and return as a state machine, against the rules in words."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.router.health import BackendHealth
from engine.router.settings import HealthSettings
from workbench.errors import ConfigError

EVENTS = ("passed", "failed", "refused", "request_failed", "request_succeeded")


def tell(health: BackendHealth, event: str, now: float) -> None:
    if event == "passed":
        health.check_passed(now)
    elif event == "failed":
        health.check_failed("it timed out", now)
    elif event == "refused":
        health.refused("refused", now)
    elif event == "request_failed":
        health.request_failed("broken off", now)
    else:
        health.request_succeeded()


def up(settings: HealthSettings) -> BackendHealth:
    health = BackendHealth(settings)
    change = health.check_passed(0.0)
    assert change is not None
    assert change.is_up
    return health


@given(
    events=st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 3)), max_size=60),
    unhealthy=st.integers(1, 4),
    healthy=st.integers(1, 4),
    failures=st.integers(1, 4),
    hold=st.floats(0, 5),
)
@settings(max_examples=50, deadline=None)
def test_every_change_has_its_cause(
    events: list[tuple[str, float]], unhealthy: int, healthy: int, failures: int, hold: float
) -> None:
    settings = HealthSettings(
        unhealthy_after=unhealthy,
        healthy_after=healthy,
        max_failures=failures,
        ejection_s=hold,
        max_ejection_s=hold * 4,
    )
    health, now, down_since = up(settings), 0.0, 0.0
    checks: list[str] = []
    requests: list[str] = []
    for event, wait in events:
        now += wait
        was_up = health.is_up
        tell(health, event, now)
        checks += [event] if event in ("passed", "failed", "refused") else []
        requests += [event] if event.startswith("request") else []
        if was_up and not health.is_up:
            caused = {
                "refused": True,
                "failed": checks[-unhealthy:] == ["failed"] * unhealthy,
                "request_failed": requests[-failures:] == ["request_failed"] * failures,
            }
            assert caused[event]
            checks, requests, down_since = [], [], now
        elif was_up:
            assert checks[-unhealthy:] != ["failed"] * unhealthy
            assert event != "refused"
        elif health.is_up:
            assert checks[-healthy:] == ["passed"] * healthy
            assert now - down_since >= hold * (1 - 1e-9)
            checks, requests = [], []
        else:
            # only a check brings it back, however long the time has been over
            overdue = event == "passed" and now - down_since > hold * 4 * (1 + 1e-9)
            assert not (overdue and checks[-healthy:] == ["passed"] * healthy)


def test_the_first_good_check_brings_it_up_and_later_ones_must_repeat() -> None:
    health = up(HealthSettings(healthy_after=2, ejection_s=0))
    health.refused("gone", 1.0)
    assert health.check_passed(2.0) is None
    assert health.check_failed("not yet", 3.0) is None
    assert health.check_passed(4.0) is None
    assert health.check_passed(5.0) is not None


def test_an_ejection_doubles_until_a_request_succeeds() -> None:
    health = up(HealthSettings(healthy_after=1, ejection_s=1.0, max_ejection_s=4.0))

    def time_down(now: float) -> float:
        health.refused("gone", now)
        return next(t for t in (1.0, 2.0, 4.0, 8.0) if health.check_passed(now + t))

    assert [time_down(now) for now in (0.0, 10.0, 20.0, 30.0)] == [1.0, 2.0, 4.0, 4.0]
    health.request_succeeded()
    assert time_down(40.0) == 1.0


def test_late_news_of_a_backend_that_is_down_change_nothing() -> None:
    health = up(HealthSettings())
    health.refused("gone", 1.0)
    health.request_failed("late", 2.0)
    health.request_succeeded()
    assert (health.is_up, health.num_ejections, health.since) == (False, 1, 1.0)


@pytest.mark.parametrize(
    "bad", [{"interval_s": 0}, {"healthy_after": 0}, {"path": "health"}, {"timeout_s": "2"}]
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        HealthSettings(**bad)
