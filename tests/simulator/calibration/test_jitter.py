"""Noise that was measured is drawn again."""

import numpy as np
import pytest

from simulator.calibration.jitter import LEVELS, Jitter
from tests.simulator.calibration.worlds import NOISE


def draws(jitter: Jitter, number: int, seed: int = 0) -> np.ndarray:
    sampler = jitter.sampler(np.random.default_rng(seed))
    return np.log([sampler() for _ in range(number)])


def test_draws_have_the_quantiles_and_the_correlation() -> None:
    drawn = draws(NOISE, 20_000)
    for level in (0.1, 0.5, 0.9):
        expected = NOISE.quantiles[LEVELS.index(level)]
        assert np.quantile(drawn, level) == pytest.approx(expected, abs=0.01)
    assert Jitter.of([drawn], [np.ones(len(drawn))]).autocorrelation == pytest.approx(0.5, abs=0.05)


def test_the_same_seed_gives_the_same_steps() -> None:
    assert (draws(NOISE, 3000) == draws(NOISE, 3000)).all()
    assert (draws(NOISE, 10) != draws(NOISE, 10, seed=1)).any()


def test_runs_of_equal_noise_differ_by_their_drift() -> None:
    rng = np.random.default_rng(0)
    runs = [draws(NOISE, 400, seed) + 0.05 * rng.standard_normal() for seed in range(30)]
    found = Jitter.of(runs, [np.exp(run) for run in runs])
    assert found.run_sd == pytest.approx(0.05, rel=0.35)
    assert found.mean_factor == pytest.approx(float(np.exp(draws(NOISE, 9000)).mean()), rel=0.01)


def test_nothing_measured_is_no_noise() -> None:
    assert Jitter.of([], []) == Jitter()
    assert draws(Jitter(), 5).tolist() == [0.0] * 5


def test_of_one_run_nobody_knows_how_far_a_run_is_off() -> None:
    run = draws(NOISE, 400)
    found = Jitter.of([run], [np.exp(run)])
    assert (found.run_sd, found.known_run_sd, found.num_runs) == (None, None, 1)
    assert found.quantiles[LEVELS.index(0.9)] > 0.01
    assert Jitter.of([run, run], [np.exp(run)] * 2).known_run_sd is not None
