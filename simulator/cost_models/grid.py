"""Measured times as corrections of a formula, on a grid of any number of axes.

A table holds measured / predicted at its points. Between points the correction is interpolated
multi-linearly in the logarithm of every axis; outside it stays that of the nearest edge, so the
formula's physics carries an extrapolation. Cells that were not measured are filled along the axes.

Knows numbers only: what an axis means is the caller's business.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import product
from math import log2

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class CorrectionGrid:
    """Correction factors over a product grid.

    Args:
        points: Coordinates, shape (points, axes), each at least 0.
        corrections: Measured / predicted at every point, shape (points,); of equal points the mean.

    Attributes:
        largest: Largest coordinate of every axis.
    """

    def __init__(self, points: Array, corrections: Array) -> None:
        points = np.asarray(points, dtype=np.float64)
        if not len(points):
            raise ValueError("a correction grid needs at least one point")
        axes, places = [], []
        for column in points.T:
            values, place = np.unique(column, return_inverse=True)
            axes.append(values)
            places.append(place)
        shape = tuple(len(axis) for axis in axes)
        total, count = np.zeros(shape), np.zeros(shape)
        np.add.at(total, tuple(places), np.asarray(corrections, dtype=np.float64))
        np.add.at(count, tuple(places), 1)
        with np.errstate(invalid="ignore"):
            cells = total / count
        logs = [np.log2(axis + 1.0) for axis in axes]
        fill_gaps(cells, logs)
        self.largest = tuple(float(axis[-1]) for axis in axes)
        self._axes: list[list[float]] = [log.tolist() for log in logs]
        self._cells: list[float] = cells.ravel().tolist()
        self._strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]

    def __call__(self, *coordinates: float) -> float:
        """Correction at one point."""
        corners = [(0, 1.0)]
        for axis, stride, coordinate in zip(self._axes, self._strides, coordinates, strict=True):
            x = log2(coordinate + 1.0)
            right = bisect_right(axis, x)
            if right == 0:
                continue
            left = right - 1
            if right == len(axis):
                corners = [(base + left * stride, weight) for base, weight in corners]
                continue
            share = (x - axis[left]) / (axis[right] - axis[left])
            step = left * stride
            near = [(base + step, weight * (1.0 - share)) for base, weight in corners]
            if share:
                step += stride
                near += [(base + step, weight * share) for base, weight in corners]
            corners = near
        cells = self._cells
        return sum([cells[place] * weight for place, weight in corners])

    def is_inside(self, *coordinates: float) -> bool:
        """No coordinate is beyond the largest of its axis."""
        for x, limit in zip(coordinates, self.largest, strict=True):  # noqa: SIM110 (asked every step)
            if x > limit:
                return False
        return True


def fill_gaps(cells: Array, axes: Sequence[Array]) -> None:
    """Fill missing cells (NaN) in place: between known ones first, then outwards.

    Args:
        cells: Values, one dimension an axis.
        axes: Ascending coordinates of every axis.
    """
    for outwards in (False, True):
        for dimension in reversed(range(cells.ndim)):
            if not np.isnan(cells).any():
                return
            lines = np.moveaxis(cells, dimension, -1)
            x = axes[dimension]
            for index in product(*(range(size) for size in lines.shape[:-1])):
                line = lines[index]
                missing = np.isnan(line)
                known = ~missing
                if not missing.any() or not known.any():
                    continue
                if not outwards:
                    missing &= (x > x[known].min()) & (x < x[known].max())
                line[missing] = np.interp(x[missing], x[known], line[known])


def interpolate_line(x: Sequence[float], xs: Array, ys: Array) -> Array:
    """Piecewise-linear values at `x`; beyond the last point the slope of the upper half goes on.

    Args:
        x: Where to evaluate.
        xs: Ascending coordinates of the points.
        ys: Their values.
    """
    at = np.asarray(x, dtype=np.float64)
    values = np.interp(at, xs, ys)
    middle = len(xs) // 2
    if middle < len(xs) - 1:
        slope = max(0.0, (ys[-1] - ys[middle]) / (xs[-1] - xs[middle]))
        values = values + slope * np.maximum(0.0, at - xs[-1])
    return np.asarray(values, dtype=np.float64)
