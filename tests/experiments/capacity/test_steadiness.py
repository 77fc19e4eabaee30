"""The backlog test: silent on a loaded server, loud on one that falls behind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.capacity.steadiness import backlog

LIMIT = 0.02


def queue(
    load: float, count: int, seed: int, service: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Arrivals and finishes of one server with fixed service and Poisson arrivals."""
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(service / load, count))
    finishes = np.empty(count)
    free = 0.0
    for i, arrival in enumerate(arrivals.tolist()):
        free = max(free, arrival) + service
        finishes[i] = free
    return arrivals, finishes


@pytest.mark.parametrize("seed", range(10))
def test_a_loaded_server_keeps_up(seed: int) -> None:
    assert not backlog(*queue(0.8, 3000, seed)).grows(LIMIT)


@pytest.mark.parametrize("seed", range(10))
def test_an_overloaded_server_does_not(seed: int) -> None:
    held_up = backlog(*queue(1.15, 3000, seed))
    assert held_up.grows(LIMIT)
    assert held_up.growth == pytest.approx(1 - 1 / 1.15, abs=0.06)


@given(st.floats(1e-3, 1e3), st.integers(0, 5))
def test_the_unit_of_time_does_not_matter(unit: float, seed: int) -> None:
    arrivals, finishes = queue(1.05, 300, seed)
    one, other = backlog(arrivals, finishes), backlog(arrivals * unit, finishes * unit)
    assert other.growth == pytest.approx(one.growth, abs=1e-9)
    assert other.noise == pytest.approx(one.noise, abs=1e-9)


def test_many_requests_in_service_are_no_backlog() -> None:
    # no queue at all: 10 arrive a second and stay for 20 s, so about 200 are there
    random = np.random.default_rng(1)
    arrivals = np.cumsum(random.exponential(0.1, 3000))
    for seed in range(20):
        stays = np.random.default_rng(seed).exponential(20.0, 3000)
        assert not backlog(arrivals, arrivals + stays).grows(LIMIT)


def test_requests_that_never_finish_are_backlog() -> None:
    arrivals = np.arange(100.0)
    assert backlog(arrivals, np.full(100, np.nan)).growth == pytest.approx(1.0, abs=0.05)


def test_requests_that_come_at_one_time_cannot_be_kept_up_with() -> None:
    assert backlog(np.zeros(100), np.arange(100.0)).grows(LIMIT)
    assert not backlog(np.zeros(1), np.ones(1)).grows(LIMIT)
