"""Distributions of prompt and output lengths, in tokens.

Knows numbers of tokens, and for outputs the prompts they belong to; knows nothing of arrivals.
Every length is at least 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from workbench.errors import WorkloadError
from workbench.workload.bounds import check_instance, check_integer, check_number

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class Lengths(ABC):
    """A distribution of token counts."""

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator, prompts: IntArray | None = None) -> IntArray:
        """Draw n lengths, each >= 1.

        `prompts` (shape [n]) are the prompt lengths the draws belong to, for outputs that depend
        on them; other distributions ignore it.
        """


class FixedLengths(Lengths):
    """Always the same length."""

    def __init__(self, tokens: int) -> None:
        self.tokens = check_integer("tokens", tokens, at_least=1)

    def sample(self, n: int, rng: np.random.Generator, prompts: IntArray | None = None) -> IntArray:
        return np.full(n, self.tokens, np.int64)


class UniformLengths(Lengths):
    """Every whole number from `low` to `high`, both included, equally often."""

    def __init__(self, low: int, high: int) -> None:
        self.low = check_integer("low", low, at_least=1)
        self.high = check_integer("high", high, at_least=self.low)

    def sample(self, n: int, rng: np.random.Generator, prompts: IntArray | None = None) -> IntArray:
        return rng.integers(self.low, self.high, n, endpoint=True)


class LognormalLengths(Lengths):
    """Lengths whose logarithm is normal, rounded and clipped to `minimum` … `maximum`.

    `median` in tokens, `sigma` the standard deviation of the natural logarithm.
    """

    def __init__(
        self, median: float, sigma: float, minimum: int = 1, maximum: int | None = None
    ) -> None:
        self.median = check_number("median", median, above=0)
        self.sigma = check_number("sigma", sigma, at_least=0)
        self.minimum = check_integer("minimum", minimum, at_least=1)
        self.maximum = (
            None if maximum is None else check_integer("maximum", maximum, at_least=self.minimum)
        )

    def sample(self, n: int, rng: np.random.Generator, prompts: IntArray | None = None) -> IntArray:
        draws = self.median * np.exp(self.sigma * rng.standard_normal(n))
        upper = 2.0**53 if self.maximum is None else self.maximum
        return np.rint(np.clip(draws, self.minimum, upper)).astype(np.int64)


class QuantileLengths(Lengths):
    """An empirical distribution, told by its quantiles.

    `values[i]` is the length at cumulative probability `levels[i]`, linear in between; levels rise
    from 0 to 1, values do not fall. `from_lengths` makes one of observed lengths.
    """

    def __init__(self, levels: Sequence[float], values: Sequence[float]) -> None:
        self.levels = _check_levels(levels)
        self.values = _check_values(values, self.levels)

    @classmethod
    def from_lengths(cls, lengths: Sequence[int], num_levels: int = 201) -> "QuantileLengths":
        """The quantiles of observed lengths (at least one)."""
        check_integer("num_levels", num_levels, at_least=2)
        if len(lengths) == 0:
            raise WorkloadError("lengths is empty; give at least one observed length")
        levels = np.linspace(0.0, 1.0, num_levels)
        return cls(levels.tolist(), np.quantile(np.asarray(lengths), levels).tolist())

    def sample(self, n: int, rng: np.random.Generator, prompts: IntArray | None = None) -> IntArray:
        draws = np.interp(rng.random(n), self.levels, self.values)
        return np.rint(draws).astype(np.int64)


class ConditionalQuantileLengths(Lengths):
    """Output lengths by quantiles, one set of quantiles for each range of prompt lengths.

    A prompt p falls in range i, the first with `p <= prompt_edges[i]`, or in the last one.
    `values[i]` are the quantiles in range i at `levels`: one more row than edges.
    """

    def __init__(
        self,
        prompt_edges: Sequence[float],
        levels: Sequence[float],
        values: Sequence[Sequence[float]],
    ) -> None:
        self.prompt_edges = np.asarray(list(prompt_edges), np.float64)
        self.levels = _check_levels(levels)
        if (np.diff(self.prompt_edges) <= 0).any():
            raise WorkloadError("prompt_edges do not rise; sort them and drop the doubles")
        if len(values) != len(self.prompt_edges) + 1:
            raise WorkloadError(
                f"values has {len(values)} rows, but {len(self.prompt_edges)} prompt_edges make "
                f"{len(self.prompt_edges) + 1} ranges; give one row a range"
            )
        self.values = np.stack([_check_values(row, self.levels) for row in values])

    def sample(self, n: int, rng: np.random.Generator, prompts: IntArray | None = None) -> IntArray:
        if prompts is None:
            raise WorkloadError(
                "ConditionalQuantileLengths needs prompt lengths; use it for output_lengths only"
            )
        rows = np.searchsorted(self.prompt_edges, prompts, side="left")
        draws = rng.random(n)
        left = np.searchsorted(self.levels, draws, side="right") - 1
        step = self.levels[left + 1] - self.levels[left]
        share = (draws - self.levels[left]) / step
        low, high = self.values[rows, left], self.values[rows, left + 1]
        return np.rint(low + share * (high - low)).astype(np.int64)


class RankCorrelatedLengths(Lengths):
    """Output lengths of any distribution, ordered so that they correlate with the prompts.

    `correlation` (-1 … 1) is that of the normal scores of both ranks (Iman and Conover, 1982):
    the outputs keep their own distribution, only their order changes.
    """

    def __init__(self, lengths: Lengths, correlation: float) -> None:
        check_instance("lengths", lengths, Lengths)
        self.lengths = lengths
        self.correlation = check_number("correlation", correlation, at_least=-1, at_most=1)

    def sample(self, n: int, rng: np.random.Generator, prompts: IntArray | None = None) -> IntArray:
        if prompts is None:
            raise WorkloadError(
                "RankCorrelatedLengths needs prompt lengths; use it for output_lengths only"
            )
        draws = np.sort(self.lengths.sample(n, rng, prompts))
        tie_break = rng.random(n)
        scores = np.empty(n)
        scores[np.lexsort((tie_break, prompts))] = np.sort(rng.standard_normal(n))
        rest = np.sqrt(1 - self.correlation**2)
        scores = self.correlation * scores + rest * rng.standard_normal(n)
        outputs = np.empty(n, np.int64)
        outputs[np.argsort(scores)] = draws
        return outputs


def _check_levels(levels: Sequence[float]) -> FloatArray:
    array = np.asarray(list(levels), np.float64)
    rises = len(array) >= 2 and bool((np.diff(array) > 0).all())
    if not rises or array[0] != 0 or array[-1] != 1:
        raise WorkloadError("levels must rise from 0 to 1 (at least two); sort and complete them")
    return array


def _check_values(values: Sequence[float], levels: FloatArray) -> FloatArray:
    array = np.asarray(list(values), np.float64)
    if len(array) != len(levels):
        raise WorkloadError(
            f"{len(array)} values are given for {len(levels)} levels; give one value a level"
        )
    if not (np.isfinite(array).all() and array[0] >= 1 and (np.diff(array) >= 0).all()):
        raise WorkloadError("values must be lengths >= 1 that do not fall; sort and correct them")
    return array
