"""Step times with their errors: one draw of what a run may be like, out of many.

Knows three spreads and keeps them apart: noise of steps, which averages out over a long run; the
error of a whole run (the machine's mood, the model's own error), which does not; and what is added
where the price is extrapolated. It does not know where they come from.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from simulator.bounds import check_number
from simulator.calibration.calibration import Calibration
from simulator.calibration.jitter import FEWEST_RUNS, Jitter
from simulator.cost_models.base import CostModel
from simulator.cost_models.calibrated import CalibratedCostModel
from workbench.errors import ConfigError
from workbench.step_profile import StepShape


@dataclass(frozen=True)
class Spread:
    """How wrong a cost model may be; standard deviations of logarithms.

    Attributes:
        jitter: Noise of steps; its `run_sd` counts for calibrated prices, where it is known.
        model_error: Of a whole run, beside that.
        extrapolation: Of extrapolated steps, for every doubling beyond what was measured; once for
            all where the model does not say how far.
    """

    jitter: Jitter = field(default_factory=Jitter)
    model_error: float = 0.0
    extrapolation: float = 0.0

    @classmethod
    def of(cls, cost_model: CostModel, model_error: float | None = None) -> "Spread":
        """That of a calibration, of a stated model error, or of both.

        Raises:
            ConfigError: The cost model says nothing of its errors, or its calibration nothing of
                whole runs, and none is stated.
        """
        if model_error is not None:
            check_number("uncertainty.model_error", model_error, below=1.0)
        if isinstance(cost_model, CalibratedCostModel):
            calibration = cost_model.calibration
            if model_error is None:
                check_run_error(calibration)
            return cls(cost_model.jitter, model_error or 0.0, out_of_sample(calibration))
        if model_error is None:
            raise ConfigError(
                f"uncertainty.model_error is not set, and {type(cost_model).__name__} does not know"
                " its own: state it, e.g. 0.06 (docs/cost_models.md has a table), or use"
                " cost_model=calibrated"
            )
        return cls(Jitter(), model_error, model_error)


def check_run_error(calibration: Calibration) -> None:
    """Refuse a calibration that does not know how far a whole run is off.

    Raises:
        ConfigError: It has fewer than two recordings.
    """
    if calibration.jitter.known_run_sd is None:
        raise ConfigError(
            "uncertainty.model_error is not set, and the calibration has fewer than"
            f" {FEWEST_RUNS} recordings, so it does not know how far a whole run is off:"
            f" calibrate with calibrate.rounds={FEWEST_RUNS} or more, or state it, e.g."
            " uncertainty.model_error=0.03"
        )


def out_of_sample(calibration: Calibration) -> float:
    """Standard deviation of the errors of shapes that a fit had not seen, from their tail."""
    told = [both.get("out_of_sample", {}) for both in calibration.residuals.values()]
    tails = [float(t["p90_absolute_error"]) for t in told if "p90_absolute_error" in t]
    return max(tails, default=0.0) / 1.645


class UncertainCostModel(CostModel):
    """Another cost model, with errors drawn for one run.

    Args:
        target: Says the mean.
        spread: How wrong it may be.
        seed: Of the draws.
    """

    is_repeatable = False

    def __init__(self, target: CostModel, spread: Spread, seed: int) -> None:
        self._target, self._spread, self._seed = target, spread, seed
        self.is_bounded = target.is_bounded
        self.wants_time = target.wants_time
        self.wants_longest_decode = target.wants_longest_decode
        self.is_replay = target.is_replay
        rng = np.random.default_rng(seed)
        jitter = spread.jitter
        run, model, outside = rng.standard_normal(3).tolist()
        degrees = max(jitter.num_runs - 1, 1)
        # a spread that few runs tell of is uncertain itself: Student's distribution
        run_sd = jitter.known_run_sd or 0.0
        widened = run * math.sqrt(degrees / rng.chisquare(degrees)) if run_sd else 0.0
        self._run_factor = math.exp(run_sd * widened + spread.model_error * model)
        self._outside = spread.extrapolation * outside
        self._next_factor = jitter.sampler(rng) if jitter.is_noisy else _one
        self._mean_factors = [jitter.mean_factor(kind) for kind in (False, True)]
        self._factor = 1.0

    def for_replica(self, number: int) -> "UncertainCostModel":
        """Errors of its own for each replica."""
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        return UncertainCostModel(self._target.for_replica(number), self._spread, seed)

    def tell_time(self, now: float) -> None:
        self._target.tell_time(now)

    def step_time(self, shape: StepShape) -> float:
        kind = bool(shape.prefills)
        self._factor = self._run_factor * self._next_factor(kind) / self._mean_factors[kind]
        if self._outside and self.is_bounded and self._target.is_extrapolated(shape):
            self._factor *= math.exp(self._outside * self._doublings(shape))
        return self._target.step_time(shape) * self._factor

    def host_time(self, shape: StepShape) -> float:
        return self._target.host_time(shape) * self._factor

    def is_extrapolated(self, shape: StepShape) -> bool:
        return self.is_bounded and self._target.is_extrapolated(shape)

    def _doublings(self, shape: StepShape) -> float:
        if isinstance(self._target, CalibratedCostModel):
            return math.log2(self._target.calibration.beyond(shape))
        return 1.0


def _one(has_prompts: bool) -> float:
    return 1.0
