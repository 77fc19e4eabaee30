"""Least squares with coefficients of at least 0."""

import numpy as np
import pytest

from simulator.calibration.least_squares import nonnegative_least_squares


def test_coefficients_that_fit_are_found() -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 1, (40, 6)) * [1, 1e3, 1e-4, 1, 1, 1]
    x = np.array([0.5, 2e-3, 7e3, 0.0, 1.0, 0.0])
    assert nonnegative_least_squares(a, a @ x) == pytest.approx(x, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_no_coefficient_is_negative_and_none_can_be_improved(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(30, 8)), rng.normal(size=30)
    x = nonnegative_least_squares(a, b)
    gradient = a.T @ (a @ x - b)
    assert (x >= 0).all()
    assert np.abs(gradient[x > 0]).max(initial=0) < 1e-8
    assert (gradient[x == 0] > -1e-8).all()


def test_equal_columns_and_empty_ones_do_no_harm() -> None:
    column = np.arange(1.0, 6.0)
    a = np.stack([column, column, np.zeros(5)], axis=1)
    x = nonnegative_least_squares(a, 3 * column)
    assert a @ x == pytest.approx(3 * column)
    assert x[2] == 0
