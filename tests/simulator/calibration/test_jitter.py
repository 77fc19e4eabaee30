"""Noise that was measured is drawn again."""

import numpy as np
import pytest

from simulator.calibration.jitter import LEVELS, Jitter
from tests.simulator.calibration.worlds import NOISE


def draws(jitter: Jitter, number: int, seed: int = 0, has_prompts: bool = False) -> np.ndarray:
    sampler = jitter.sampler(np.random.default_rng(seed))
    return np.log([sampler(has_prompts) for _ in range(number)])


def only_decodes(*runs: np.ndarray) -> list[np.ndarray]:
    return [np.zeros(len(run), dtype=np.bool_) for run in runs]


def test_draws_have_the_quantiles_and_the_correlation() -> None:
    drawn = draws(NOISE, 20_000)
    for level in (0.1, 0.5, 0.9):
        expected = NOISE.quantiles[LEVELS.index(level)]
        assert np.quantile(drawn, level) == pytest.approx(expected, abs=0.01)
    found = Jitter.of([drawn], only_decodes(drawn))
    for lag in (1, 4, 16, 64):
        assert found.autocorrelation(lag) == pytest.approx(NOISE.autocorrelation(lag), abs=0.06)
    assert NOISE.autocorrelation(1) == pytest.approx(0.3 / np.e + 0.4 * np.exp(-1 / 16))


def test_the_same_seed_gives_the_same_steps() -> None:
    assert (draws(NOISE, 3000) == draws(NOISE, 3000)).all()
    assert (draws(NOISE, 10) != draws(NOISE, 10, seed=1)).any()


def test_runs_of_equal_noise_differ_by_their_drift() -> None:
    rng = np.random.default_rng(0)
    runs = [draws(NOISE, 400, seed) + 0.05 * rng.standard_normal() for seed in range(30)]
    found = Jitter.of(runs, only_decodes(*runs))
    assert found.run_sd == pytest.approx(0.05, rel=0.35)


def test_the_mean_factor_is_that_of_the_draws() -> None:
    assert NOISE.mean_factor(False) == pytest.approx(
        float(np.exp(draws(NOISE, 50_000)).mean()), rel=0.005
    )
    assert Jitter().mean_factor(True) == pytest.approx(1.0)


def test_each_kind_of_steps_has_its_own_spread_and_both_share_slow_moments() -> None:
    narrow = tuple(0.2 * q for q in NOISE.quantiles)
    noise = Jitter(NOISE.quantiles, narrow, lasting=(0.0, 0.9, 0.0, 0.0, 0.0))
    rng = np.random.default_rng(1)
    kinds = rng.random(20_000) < 0.3
    sampler = noise.sampler(np.random.default_rng(2))
    drawn = np.log([sampler(bool(kind)) for kind in kinds])
    assert drawn[~kinds].std() == pytest.approx(5 * drawn[kinds].std(), rel=0.1)
    found = Jitter.of([drawn], [kinds])
    assert found.quantiles_of_prompts[8] == pytest.approx(narrow[8], abs=0.01)
    assert found.quantiles[8] == pytest.approx(NOISE.quantiles[8], abs=0.02)
    assert found.autocorrelation(4) == pytest.approx(noise.autocorrelation(4), abs=0.06)
    few = Jitter.of([drawn[:500]], [np.arange(500) < 3])
    assert few.quantiles_of_prompts[8] == pytest.approx(few.quantiles[8], abs=0.03)


def test_noise_that_lasts_makes_blocks_of_steps_differ() -> None:
    def spread_of_blocks(lasting: tuple[float, ...]) -> float:
        drawn = draws(Jitter(NOISE.quantiles, lasting=lasting), 51_200)
        return float(drawn.reshape(-1, 256).mean(axis=1).std())

    own, short, long = (
        spread_of_blocks(lasting)
        for lasting in ((0.0,) * 5, (0.0, 0.8, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 0.8))
    )
    assert own < 0.5 * short
    assert short < 0.3 * long


def test_nothing_measured_is_no_noise() -> None:
    assert Jitter.of([], []) == Jitter()
    assert draws(Jitter(), 5).tolist() == [0.0] * 5


def test_of_one_run_nobody_knows_how_far_a_run_is_off() -> None:
    run = draws(NOISE, 400)
    found = Jitter.of([run], only_decodes(run))
    assert (found.run_sd, found.known_run_sd, found.num_runs) == (None, None, 1)
    assert found.quantiles[LEVELS.index(0.9)] > 0.01
    assert Jitter.of([run, run], only_decodes(run, run)).known_run_sd is not None
