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
    found = Jitter.of([drawn])
    for lag in (1, 4, 16, 64):
        assert found.autocorrelation(lag) == pytest.approx(NOISE.autocorrelation(lag), abs=0.06)
    assert NOISE.autocorrelation(1) == pytest.approx(0.3 / np.e + 0.4 * np.exp(-1 / 16))


def test_the_same_seed_gives_the_same_steps() -> None:
    assert (draws(NOISE, 3000) == draws(NOISE, 3000)).all()
    assert (draws(NOISE, 10) != draws(NOISE, 10, seed=1)).any()


def test_runs_of_equal_noise_differ_by_their_drift() -> None:
    rng = np.random.default_rng(0)
    runs = [draws(NOISE, 400, seed) + 0.05 * rng.standard_normal() for seed in range(30)]
    found = Jitter.of(runs)
    assert found.run_sd == pytest.approx(0.05, rel=0.35)


def test_the_mean_factor_is_that_of_the_draws() -> None:
    assert NOISE.mean_factor == pytest.approx(float(np.exp(draws(NOISE, 50_000)).mean()), rel=0.005)
    assert Jitter().mean_factor == pytest.approx(1.0)


def test_noise_that_lasts_makes_blocks_of_steps_differ() -> None:
    def spread_of_blocks(lasting: tuple[float, ...]) -> float:
        drawn = draws(Jitter(NOISE.quantiles, lasting), 51_200)
        return float(drawn.reshape(-1, 256).mean(axis=1).std())

    own, short, long = (
        spread_of_blocks(lasting)
        for lasting in ((0.0,) * 5, (0.0, 0.8, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 0.8))
    )
    assert own < 0.5 * short
    assert short < 0.3 * long


def test_nothing_measured_is_no_noise() -> None:
    assert Jitter.of([]) == Jitter()
    assert draws(Jitter(), 5).tolist() == [0.0] * 5


def test_of_one_run_nobody_knows_how_far_a_run_is_off() -> None:
    run = draws(NOISE, 400)
    found = Jitter.of([run])
    assert (found.run_sd, found.known_run_sd, found.num_runs) == (None, None, 1)
    assert found.quantiles[LEVELS.index(0.9)] > 0.01
    assert Jitter.of([run, run]).known_run_sd is not None
