"""How far steps of one shape differ from each other: noise of a step, and the drift of a run.

Knows logarithms of measured / predicted. A slow phase of a machine shifts a whole run, and no
averaging over its steps helps; the noise of single steps averages out. So the two are kept apart:
the mean of a run has a spread of its own, and the steps around it have quantiles and a correlation
from one step to the next.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVELS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
BATCH = 1024
FEWEST_RUNS = 2


@dataclass(frozen=True)
class Jitter:
    """The spread of step times around the typical one.

    Attributes:
        quantiles: Of log(step / typical step of its run) at `LEVELS`.
        autocorrelation: Of the normal scores of consecutive steps.
        run_sd: Standard deviation of a run's typical log(measured / predicted), each predicted by
            a model that was fitted without it; None: unknown, with fewer than two runs.
        num_runs: Runs that were recorded.
        mean_factor: Mean of the factors that a run's steps have around its typical one.
    """

    quantiles: tuple[float, ...] = (0.0,) * len(LEVELS)
    autocorrelation: float = 0.0
    run_sd: float | None = None
    num_runs: int = 0
    mean_factor: float = 1.0

    @property
    def known_run_sd(self) -> float | None:
        """`run_sd` if it rests on runs that were left out: one run is never predicted by others."""
        return self.run_sd if self.num_runs >= FEWEST_RUNS else None

    @classmethod
    def of(
        cls, runs: Sequence[Array], seconds: Sequence[Array], run_means: Sequence[float] = ()
    ) -> "Jitter":
        """From log ratios in the order of time, one array a run.

        Args:
            runs: log(measured / predicted), the predictions of one model.
            seconds: Measured, of the same steps.
            run_means: The runs' typical log ratios by models that were fitted without the run;
                none: those of `runs`.
        """
        if not any(len(run) for run in runs):
            return cls()
        seconds = [took for took in seconds if len(took)]
        runs = [run for run in runs if len(run)]
        centres = [float(np.median(run)) for run in runs]
        within = [run - centre for run, centre in zip(runs, centres, strict=True)]
        steps = np.concatenate(within)
        return cls(
            tuple(float(q) for q in np.quantile(steps, LEVELS)),
            _autocorrelation(within),
            _spread(run_means or centres) if len(runs) >= FEWEST_RUNS else None,
            len(runs),
            _mean_factor(within, seconds),
        )

    def sampler(self, rng: np.random.Generator) -> "JitterSampler":
        """Factors of consecutive steps."""
        return JitterSampler(self, rng)


class JitterSampler:
    """Draws factors for the steps of one run: typical step x factor = a step.

    Args:
        jitter: The spread.
        rng: Chance.
    """

    def __init__(self, jitter: Jitter, rng: np.random.Generator) -> None:
        self._jitter, self._rng = jitter, rng
        self._score = float(rng.standard_normal())
        self._ready: list[float] = []

    def __call__(self) -> float:
        """The factor of the next step."""
        if not self._ready:
            self._draw()
        return self._ready.pop()

    def _draw(self) -> None:
        """Correlated normal scores, each turned into the quantile of its rank."""
        rho = self._jitter.autocorrelation
        fresh = self._rng.standard_normal(BATCH) * math.sqrt(1.0 - rho * rho)
        scores, score = [], self._score
        for value in fresh.tolist():
            score = rho * score + value
            scores.append(score)
        self._score = score
        ranks = np.array([NORMAL.cdf(score) for score in scores])
        logs = np.interp(ranks, LEVELS, self._jitter.quantiles)
        self._ready = np.exp(logs[::-1]).tolist()


NORMAL = NormalDist()


def _mean_factor(within: Sequence[Array], seconds: Sequence[Array]) -> float:
    """Time of all steps over that of typical ones; of the middle run, so that none spoils it."""
    factors = [
        float(took.sum() / (took / np.exp(noise)).sum())
        for noise, took in zip(within, seconds, strict=True)
    ]
    return float(np.median(factors))


def _autocorrelation(runs: Sequence[Array]) -> float:
    """Correlation of the normal scores of neighbours, over all runs; 0 where they are few."""
    pairs = [(_scores(run)) for run in runs if len(run) > 2]
    if not pairs:
        return 0.0
    first = np.concatenate([run[:-1] for run in pairs])
    second = np.concatenate([run[1:] for run in pairs])
    if len(first) < 8 or not first.std() or not second.std():
        return 0.0
    return float(np.clip(np.corrcoef(first, second)[0, 1], 0.0, 0.98))


def _scores(run: Array) -> Array:
    """Ranks as normal scores: one long step has no more weight than its rank."""
    ranks = (np.argsort(np.argsort(run, kind="stable"), kind="stable") + 0.5) / len(run)
    return np.array([NORMAL.inv_cdf(rank) for rank in ranks.tolist()])


def _spread(means: Sequence[float]) -> float:
    """Standard deviation around 0: a model that is wrong for a run is wrong, whatever the sign."""
    values = np.asarray(means, dtype=np.float64)
    return float(np.sqrt(np.mean(values**2)))
