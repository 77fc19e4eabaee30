"""Least squares with coefficients of at least 0: the active-set method of Lawson and Hanson.

Knows numbers only. For the tens of columns of a step-time model; no larger problem is meant.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ROUNDS_A_COLUMN = 10


def nonnegative_least_squares(a: Array, b: Array) -> Array:
    """x of at least 0 that makes |a x - b| least.

    Args:
        a: Shape (rows, columns).
        b: Shape (rows,).

    Returns:
        Shape (columns,); columns of zeros get 0.

    Source: Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23.
    """
    scale = np.linalg.norm(a, axis=0)
    scale[scale == 0] = 1.0
    a = a / scale
    gram, target = a.T @ a, a.T @ b
    tolerance = 1e-10 * max(1.0, float(np.abs(target).max(initial=0.0)))
    x = np.zeros(a.shape[1])
    free = np.zeros(a.shape[1], dtype=np.bool_)
    for _ in range(ROUNDS_A_COLUMN * a.shape[1]):
        gradient = np.where(free, -np.inf, target - gram @ x)
        best = int(np.argmax(gradient))
        if gradient[best] <= tolerance:
            break
        free[best] = True
        x = _settle(gram, target, x, free)
    return np.asarray(x / scale, dtype=np.float64)


def _settle(gram: Array, target: Array, x: Array, free: NDArray[np.bool_]) -> Array:
    """Move to the best point of the free columns; those that would turn negative leave them."""
    while True:
        wanted = np.zeros_like(x)
        wanted[free] = np.linalg.lstsq(gram[np.ix_(free, free)], target[free], rcond=None)[0]
        blocked = free & (wanted <= 0)
        if not blocked.any():
            return wanted
        steps = x[blocked] / np.maximum(x[blocked] - wanted[blocked], 1e-300)
        x = x + float(steps.min()) * (wanted - x)
        free &= x > 1e-14
        x[~free] = 0.0
        if not free.any():
            return x
