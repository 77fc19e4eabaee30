"""Where one more draw lies, told from a few: the ends of a band.

Ends at the empirical quantiles hold too little: of ten draws the range from the 5th to the 95th
percentile, read off between the draws, holds the next one in about 74 % of all cases. Between the
draws in the places p (n + 1) it is as many as were asked for (H. A. David and H. N. Nagaraja, Order
Statistics, chapter 7), as long as these places lie between the smallest and the largest draw.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def prediction_interval(draws: ArrayLike, level: float) -> NDArray[np.float64]:
    """[low, high], each of the shape of one draw.

    Args:
        draws: [draws, …].
        level: How probable it is that one more draw lies between; with few draws `reached_level`.
    """
    tail = (1.0 - level) / 2.0
    values = np.asarray(draws, dtype=np.float64)
    return np.asarray(np.quantile(values, (tail, 1.0 - tail), axis=0, method="weibull"))


def reached_level(level: float, draws: int) -> float:
    """The level of an interval from so many draws: at most that of their whole range."""
    return min(level, (draws - 1) / (draws + 1))
