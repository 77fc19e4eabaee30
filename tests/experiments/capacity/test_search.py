"""The search against known answers: thresholds, a queue with a formula, answers that turn."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from experiments.capacity.search import FOUND, NONE, UNBOUNDED, Found, find_capacity
from workbench.errors import ConfigError

LOWEST, HIGHEST = 1e-6, 2.0**20
rates = st.floats(min_value=1e-5, max_value=1e5)
tolerances = st.floats(min_value=1e-4, max_value=0.5)


def search(
    threshold: float, start: float = 1.0, tolerance: float = 0.02
) -> tuple[Found, list[float]]:
    """Searches where every rate up to the threshold passes; with the rates that were asked."""
    asked: list[float] = []

    def passes(rate: float) -> bool:
        asked.append(rate)
        return rate <= threshold

    found = find_capacity(
        passes, start, lowest=LOWEST, highest=HIGHEST, tolerance=tolerance, beyond=(1.1, 1.3)
    )
    return found, asked


@given(rates, rates, tolerances)
def test_the_threshold_lies_between_the_two_rates(
    threshold: float, start: float, tolerance: float
) -> None:
    found, asked = search(threshold, start, tolerance)
    assert found.status == FOUND
    assert found.above is not None
    assert found.rate <= threshold < found.above <= found.rate * (1 + tolerance) * (1 + 1e-12)
    assert found.passes_again == ()
    assert len(asked) == len(set(asked))


@given(rates, tolerances)
def test_the_effort_is_that_of_a_bisection(threshold: float, tolerance: float) -> None:
    _, asked = search(threshold, 1.0, tolerance)
    bracket = abs(math.log2(threshold)) + 3
    halvings = max(math.log2(math.log(2) / math.log1p(tolerance)), 0) + 1
    assert len(asked) <= bracket + halvings + 2


def test_nothing_passes() -> None:
    found, asked = search(LOWEST / 2)
    assert (found.status, found.rate, found.above) == (NONE, 0.0, LOWEST)
    assert asked == [1.0, LOWEST]


def test_nothing_fails() -> None:
    found, _ = search(math.inf)
    assert (found.status, found.rate, found.above) == (UNBOUNDED, HIGHEST, None)


def test_only_the_lowest_rate_passes() -> None:
    found, _ = search(LOWEST)
    assert found.status == FOUND
    assert found.rate == LOWEST


@given(rates)
def test_a_higher_rate_that_passes_again_is_told(threshold: float) -> None:
    # an island between two rates that the bisection asks; 1.3 times the rate that failed is on it

    def passes(rate: float) -> bool:
        return rate <= threshold or 1.29 * threshold < rate < 1.5 * threshold

    start = threshold * 0.9
    found = find_capacity(
        passes, start, lowest=start / 2, highest=HIGHEST * start, tolerance=0.02, beyond=(1.1, 1.3)
    )
    assert found.status == FOUND
    assert found.rate <= threshold
    assert found.passes_again
    assert all(rate > found.above for rate in found.passes_again if found.above)


@given(st.floats(0.05, 10.0), st.floats(0.05, 20.0))
def test_it_finds_the_load_at_which_a_queue_of_fixed_service_waits_so_long(
    service: float, wait: float
) -> None:
    # M/D/1: the mean wait is load * service / (2 (1 - load))
    load = 2 * wait / (service + 2 * wait)
    assume(load < 0.9999)

    def passes(rate: float) -> bool:
        used = rate * service
        return used < 1 and used * service / (2 * (1 - used)) <= wait

    found = find_capacity(passes, 1.0, lowest=LOWEST, highest=HIGHEST, tolerance=1e-3, beyond=())
    assert found.rate * service == pytest.approx(load, rel=2e-3)


def test_bisection_of_a_simulated_queue_with_common_random_numbers() -> None:
    """Waits by Lindley's recursion: with the same gaps scaled, the answers turn only once."""
    random = np.random.default_rng(7)
    gaps = random.exponential(1.0, 40_000)
    service, limit = 0.1, 0.1
    answers: dict[float, bool] = {}

    def passes(rate: float) -> bool:
        slack = np.concatenate([[0.0], np.cumsum(service - gaps[1:] / rate)])
        waits = slack - np.minimum.accumulate(slack)
        answers[rate] = bool(waits.mean() <= limit)
        return answers[rate]

    found = find_capacity(
        passes, 1.0, lowest=LOWEST, highest=HIGHEST, tolerance=0.005, beyond=(1.1, 1.3)
    )
    assert found.rate * service == pytest.approx(2 / 3, rel=0.03)
    ordered = [answers[rate] for rate in sorted(answers)]
    assert ordered == sorted(ordered, reverse=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": 0.5},
        {"lowest": 0.0},
        {"highest": math.inf},
        {"tolerance": 0.0},
        {"tolerance": 1.0},
        {"beyond": (0.9,)},
    ],
)
def test_what_cannot_be_searched_is_refused(wrong: dict[str, float]) -> None:
    good = {"start": 1.0, "lowest": 1.0, "highest": 2.0, "tolerance": 0.1, "beyond": ()}
    settings = good | wrong
    start = settings.pop("start")
    with pytest.raises(ConfigError):
        find_capacity(lambda rate: True, start, **settings)
