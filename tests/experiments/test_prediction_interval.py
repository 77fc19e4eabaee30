"""Intervals from a few draws hold one more draw as often as they say."""

import numpy as np
import pytest

from experiments.prediction_interval import prediction_interval, reached_level


@pytest.mark.parametrize(("draws", "level"), [(10, 0.5), (19, 0.9), (40, 0.9), (10, 0.9)])
def test_one_more_draw_lies_within_as_often_as_told(draws: int, level: float) -> None:
    rng = np.random.default_rng(draws)
    values = rng.lognormal(size=(draws + 1, 20_000))
    low, high = prediction_interval(values[:-1], level)
    inside = np.mean((low <= values[-1]) & (values[-1] <= high))
    assert inside == pytest.approx(reached_level(level, draws), abs=0.01)


def test_few_draws_tell_at_most_their_range() -> None:
    assert prediction_interval([3.0, 1.0, 2.0], 0.9).tolist() == [1.0, 3.0]
    assert reached_level(0.9, 3) == 0.5
    assert reached_level(0.9, 19) == 0.9
    assert reached_level(0.9, 500) == 0.9


def test_curves_have_a_band_at_every_point() -> None:
    curves = np.arange(19.0)[:, None] * [1.0, 10.0]
    assert prediction_interval(curves, 0.9).tolist() == [[0.0, 0.0], [18.0, 180.0]]
