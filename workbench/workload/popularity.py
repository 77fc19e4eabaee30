"""Zipf popularity: a few of many things are asked for most often."""

import numpy as np
from numpy.typing import NDArray


def sample_zipf(
    num_items: int, exponent: float, n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw n of the items 0 … num_items - 1; item k has weight 1 / (k + 1) ** exponent."""
    weights = np.arange(1, num_items + 1, dtype=np.float64) ** -exponent
    shares = np.cumsum(weights)
    items: NDArray[np.int64] = np.searchsorted(shares, rng.random(n) * shares[-1], side="right")
    return items
