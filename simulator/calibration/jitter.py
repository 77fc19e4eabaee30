"""How far steps of one shape differ from each other: noise of a step, and the drift of a run.

Knows logarithms of measured / predicted. A slow phase of a machine shifts a whole run, and no
averaging over its steps helps; the noise of steps averages out over a long one. So the two are kept
apart: the mean of a run has a spread of its own, and the steps around it have quantiles and a
memory.

A queue remembers slow moments that last: a hundred long steps in a row make requests wait, a
hundred among thousands do not. So noise is a sum of parts that last for one step, for a few, and
for hundreds, as much of each as the recordings' autocorrelations say.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from simulator.calibration.least_squares import nonnegative_least_squares

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
LEVELS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
LASTING = (1, 4, 16, 64, 256)
"""Steps after which the correlation of a part of the noise has fallen to 1 / e."""
LAGS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FEWEST_PAIRS = 8
BATCH = 1024
FEWEST = 8  # steps of a kind, for quantiles of its own
FEWEST_RUNS = 2


@dataclass(frozen=True)
class Jitter:
    """The spread of step times around the typical one.

    Attributes:
        quantiles: Of log(step / typical step of its run) at `LEVELS`, of steps that only decode.
        quantiles_of_prompts: The same of steps with prompts, which are longer and scatter less.
        lasting: The shares of the variance of the normal scores that last for `LASTING` steps;
            what is left of 1 is every step's own.
        run_sd: Standard deviation of a run's typical log(measured / predicted), each predicted by
            a model that was fitted without it; None: unknown, with fewer than two runs.
        num_runs: Runs that were recorded.
    """

    quantiles: tuple[float, ...] = (0.0,) * len(LEVELS)
    quantiles_of_prompts: tuple[float, ...] = (0.0,) * len(LEVELS)
    lasting: tuple[float, ...] = (0.0,) * len(LASTING)
    run_sd: float | None = None
    num_runs: int = 0

    @property
    def known_run_sd(self) -> float | None:
        """`run_sd` if it rests on runs that were left out: one run is never predicted by others."""
        return self.run_sd if self.num_runs >= FEWEST_RUNS else None

    @property
    def is_noisy(self) -> bool:
        """Whether steps scatter at all."""
        return any(self.quantiles) or any(self.quantiles_of_prompts)

    def mean_factor(self, has_prompts: bool) -> float:
        """Mean of the factors that are drawn: of the exponential of a piecewise linear quantile."""
        quantiles = self.quantiles_of_prompts if has_prompts else self.quantiles
        ends = zip(pairwise(LEVELS), pairwise(quantiles), strict=True)
        return sum((high - low) * _mean_exp(first, last) for (low, high), (first, last) in ends)

    def autocorrelation(self, lag: int) -> float:
        """Correlation of the normal scores of steps that are so many steps apart, at least 1."""
        shares = zip(self.lasting, LASTING, strict=True)
        return sum(share * math.exp(-lag / steps) for share, steps in shares)

    @classmethod
    def of(
        cls,
        runs: Sequence[Array],
        with_prompts: Sequence[Flags],
        run_means: Sequence[float] = (),
    ) -> "Jitter":
        """From log ratios in the order of time, one array a run.

        Args:
            runs: log(measured / predicted), the predictions of one model.
            with_prompts: Whether there are prompts in each step.
            run_means: The runs' typical log ratios by models that were fitted without the run;
                none: those of `runs`.
        """
        if not any(len(run) for run in runs):
            return cls()
        with_prompts = [kinds for kinds in with_prompts if len(kinds)]
        runs = [run for run in runs if len(run)]
        centres = [float(np.median(run)) for run in runs]
        within = [run - centre for run, centre in zip(runs, centres, strict=True)]
        steps, is_prompt = np.concatenate(within), np.concatenate(with_prompts)
        of_decodes, of_prompts = (
            _quantiles(own if len(own) >= FEWEST else steps)
            for own in (steps[~is_prompt], steps[is_prompt])
        )
        return cls(
            of_decodes,
            of_prompts,
            _lasting(within, with_prompts),
            _spread(run_means or centres) if len(runs) >= FEWEST_RUNS else None,
            len(runs),
        )

    def sampler(self, rng: np.random.Generator) -> "JitterSampler":
        """Factors of consecutive steps."""
        return JitterSampler(self, rng)


class JitterSampler:
    """Draws factors for the steps of one run: typical step x factor = a step.

    A slow moment is slow for steps of either kind, each by its own spread.

    Args:
        jitter: The spread.
        rng: Chance.
    """

    def __init__(self, jitter: Jitter, rng: np.random.Generator) -> None:
        self._rng = rng
        self._quantiles = jitter.quantiles, jitter.quantiles_of_prompts
        parts = [(share, steps) for share, steps in zip(jitter.lasting, LASTING, strict=True)]
        self._decays = [math.exp(-1.0 / steps) for share, steps in parts if share]
        self._shares = np.array([share for share, _ in parts if share], dtype=np.float64)
        self._own_share = max(1.0 - float(self._shares.sum()), 0.0)
        self._parts = rng.standard_normal(len(self._shares)).tolist()
        self._ready: list[tuple[float, float]] = []

    def __call__(self, has_prompts: bool) -> float:
        """The factor of the next step."""
        if not self._ready:
            self._draw()
        return self._ready.pop()[has_prompts]

    def _draw(self) -> None:
        """Normal scores with a memory, each turned into the quantile of its rank."""
        scores = math.sqrt(self._own_share) * self._rng.standard_normal(BATCH)
        for place, (share, decay) in enumerate(zip(self._shares, self._decays, strict=True)):
            fresh = math.sqrt(1.0 - decay * decay) * self._rng.standard_normal(BATCH)
            part, values = self._parts[place], []
            for value in fresh.tolist():
                part = decay * part + value
                values.append(part)
            self._parts[place] = part
            scores += math.sqrt(share) * np.array(values)
        ranks = np.array([NORMAL.cdf(score) for score in scores.tolist()])
        of_decodes, of_prompts = (
            np.exp(np.interp(ranks[::-1], LEVELS, quantiles)).tolist()
            for quantiles in self._quantiles
        )
        self._ready = list(zip(of_decodes, of_prompts, strict=True))


NORMAL = NormalDist()


def _mean_exp(first: float, last: float) -> float:
    """Mean of exp(x) for x spread evenly between two values."""
    gap = last - first
    return math.exp(first) * (math.expm1(gap) / gap if gap else 1.0)


def _quantiles(steps: Array) -> tuple[float, ...]:
    return tuple(float(q) for q in np.quantile(steps, LEVELS))


def _lasting(runs: Sequence[Array], with_prompts: Sequence[Flags]) -> tuple[float, ...]:
    """The shares of the parts of `LASTING` that explain the autocorrelations best."""
    scores = [
        _scores_by_kind(run, kinds)
        for run, kinds in zip(runs, with_prompts, strict=True)
        if len(run) > 2 and np.ptp(run)
    ]
    told = [(lag, found) for lag in LAGS if (found := _autocorrelation(scores, lag)) is not None]
    if not told:
        return Jitter.lasting
    lags, found = np.array(told).T
    shares = nonnegative_least_squares(np.exp(-lags[:, None] / np.array(LASTING)), found)
    return tuple((shares / max(float(shares.sum()), 1.0)).tolist())


def _autocorrelation(scores: Sequence[Array], lag: int) -> float | None:
    """Of steps that are `lag` apart, over all runs; None where they are few."""
    pairs = [(run[:-lag], run[lag:]) for run in scores if len(run) > lag]
    if sum(len(first) for first, _ in pairs) < FEWEST_PAIRS:
        return None
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return float(np.corrcoef(first, second)[0, 1])


def _scores_by_kind(run: Array, is_prompt: Flags) -> Array:
    """Each step's rank among those of its kind, as normal scores."""
    scores = np.empty(len(run))
    for kind in (False, True):
        scores[is_prompt == kind] = _scores(run[is_prompt == kind])
    return scores


def _scores(run: Array) -> Array:
    """Ranks as normal scores: one long step has no more weight than its rank."""
    ranks = (np.argsort(np.argsort(run, kind="stable"), kind="stable") + 0.5) / len(run)
    return np.array([NORMAL.inv_cdf(rank) for rank in ranks.tolist()])


def _spread(means: Sequence[float]) -> float:
    """Standard deviation around 0: a model that is wrong for a run is wrong, whatever the sign."""
    values = np.asarray(means, dtype=np.float64)
    return float(np.sqrt(np.mean(values**2)))
