"""Spans of time a workload draws: think times between turns, or of users in a closed loop [s]."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from workbench.workload.bounds import check_number


class Durations(ABC):
    """A distribution of spans of time."""

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw n spans [s], each >= 0."""


class ConstantDuration(Durations):
    """Always the same span."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = check_number("seconds", seconds, at_least=0)

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        return np.full(n, self.seconds)


class ExponentialDuration(Durations):
    """Memoryless spans of a given mean [s]."""

    def __init__(self, mean: float) -> None:
        self.mean = check_number("mean", mean, at_least=0)

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        return rng.exponential(self.mean, n)


class LognormalDuration(Durations):
    """Spans whose logarithm is normal: `median` [s], `sigma` the deviation of the logarithm."""

    def __init__(self, median: float, sigma: float) -> None:
        self.median = check_number("median", median, above=0)
        self.sigma = check_number("sigma", sigma, at_least=0)

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        return self.median * np.exp(self.sigma * rng.standard_normal(n))
