"""Correction grids: exact at their points, between their neighbours elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cost_models.grid import CorrectionGrid, fill_gaps, interpolate_line

AXES = ([1.0, 2.0, 8.0], [0.0, 16.0], [4.0, 5.0, 6.0, 100.0])
POINTS = np.array([(x, y, z) for x in AXES[0] for y in AXES[1] for z in AXES[2]])
VALUES = np.random.default_rng(0).uniform(0.5, 2.0, len(POINTS))
GRID = CorrectionGrid(POINTS, VALUES)


def test_exact_at_the_points() -> None:
    assert [GRID(*point) for point in POINTS] == pytest.approx(VALUES.tolist())


@given(st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(0, 500)))
def test_never_leaves_the_range_of_the_table(point: tuple[float, float, float]) -> None:
    assert VALUES.min() - 1e-9 <= GRID(*point) <= VALUES.max() + 1e-9
    clamped = [min(max(x, axis[0]), axis[-1]) for x, axis in zip(point, AXES, strict=True)]
    assert GRID(*point) == pytest.approx(GRID(*clamped))
    assert GRID.is_inside(*clamped)


def test_linear_in_the_logarithm() -> None:
    grid = CorrectionGrid(np.array([[0.0], [3.0]]), np.array([1.0, 3.0]))
    assert grid(1) == pytest.approx(2.0)
    assert not grid.is_inside(4)


def test_equal_points_are_averaged() -> None:
    assert CorrectionGrid(np.array([[1.0], [1.0]]), np.array([1.0, 3.0]))(1) == 2.0
    with pytest.raises(ValueError, match="at least one point"):
        CorrectionGrid(np.empty((0, 1)), np.empty(0))


def test_missing_cells_are_filled_between_and_outwards() -> None:
    nan = np.nan
    cells = np.array([[1.0, nan, 3.0, nan], [nan, nan, nan, nan]])
    fill_gaps(cells, [np.arange(2.0), np.arange(4.0)])
    assert cells.tolist() == [[1.0, 2.0, 3.0, 3.0], [1.0, 2.0, 3.0, 3.0]]


def test_a_line_goes_on_with_the_slope_of_its_upper_half() -> None:
    xs, ys = np.array([1.0, 2.0, 3.0]), np.array([5.0, 6.0, 8.0])
    assert interpolate_line([0, 1.5, 3, 5], xs, ys).tolist() == [5.0, 5.5, 8.0, 12.0]
