"""Step times of one machine, from the file that its calibration left.

Knows prices and ranges; how they were measured and fitted is known by `simulator.calibration`.
The calibration's model and GPU are checked against those that are simulated.
"""

from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np

from simulator.bounds import check_count, check_number
from simulator.calibration.calibration import Calibration
from simulator.calibration.jitter import JitterSampler
from simulator.cost_models.base import FAR, CostModel
from simulator.cost_models.table_identity import check_gpu
from simulator.hardware import HardwareConfig
from simulator.model_config import ModelConfig
from workbench.errors import ConfigError, CostModelError
from workbench.step_profile import StepShape

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)


class CalibratedPrices(CostModel):
    """Seconds of a step as a calibration has them: the mean ones, or such that scatter.

    Args:
        calibration: Prices and ranges.
        slowdown: Seconds of a step now over those when it was calibrated; a machine is not always
            equally fast. Several: one for each second of simulated time, the last one goes on.
        pace: Seconds that the calibration's fixed work takes now, from which it tells how much
            slower a step is; the same for several. None: the typical pace.
        noise: Seed of the steps' scatter, which is that of the recorded steps: slow moments make
            queues, and mean ones do not. None: every step takes its mean time.
        path: Where the calibration is from, for errors.

    Raises:
        ConfigError: A slowdown or a pace is none, or the calibration knows nothing of a pace.
    """

    is_bounded = True

    def __init__(
        self,
        calibration: Calibration,
        slowdown: float | Sequence[float] = 1.0,
        pace: float | Sequence[float] | None = None,
        noise: int | None = None,
        path: str = "the calibration",
    ) -> None:
        self.calibration, self._path = calibration, path
        slowdowns = _each_second("slowdown", slowdown, least=0.01)
        paces = (0.0,) if pace is None else _each_second("pace", pace, least=1e-9)
        if pace is not None and not calibration.pace.is_known:
            raise ConfigError(
                f"cost_model.pace={pace!r}, but {path} does not tell how steps follow the machine's"
                " pace: calibrate on a CPU with calibrate.steady=true, or set cost_model.slowdown"
            )
        self._factors = [
            self._factors_at(
                slowdowns[min(second, len(slowdowns) - 1)], paces[min(second, len(paces) - 1)]
            )
            for second in range(max(len(slowdowns), len(paces)))
        ]
        self.jitter = calibration.jitter if pace is None else calibration.jitter_at_pace
        self._noise = noise
        self._mean_scatter = [self.jitter.mean_factor(kind) for kind in (False, True)]
        self._scatter = 1.0
        self._next_factor: JitterSampler | None = None
        if noise is not None:
            check_count("cost_model.noise", noise, at_least=0)
            self._next_factor = self.jitter.sampler(np.random.default_rng(noise))
        self.wants_time = len(self._factors) > 1
        self.is_repeatable = not self.wants_time and noise is None
        self.wants_longest_decode = calibration.wants_longest_decode

    def _factors_at(self, slowdown: float, pace: float) -> tuple[float, float]:
        """Mean seconds over typical ones, of steps that only decode and of those with prompts."""
        known = self.calibration
        of_decodes, of_prompts = (
            slowdown * known.mean_factor_of(kind) * known.pace.slowdown(pace, kind)
            for kind in (False, True)
        )
        return of_decodes, of_prompts

    def _factor(self, shape: StepShape) -> float:
        """Mean seconds of a step that begins now, over those of a typical one."""
        return self._factors[min(int(self.now), len(self._factors) - 1)][bool(shape.prefills)]

    def for_replica(self, number: int) -> "CalibratedPrices":
        """Itself; with noise one whose steps scatter in their own way."""
        if self._noise is None:
            return self
        own = copy(self)
        seed = np.random.SeedSequence([self._noise, number])
        own._next_factor = self.jitter.sampler(np.random.default_rng(seed))
        return own

    def step_time(self, shape: StepShape) -> float:
        """Seconds of a step.

        Raises:
            CostModelError: More than 8 times beyond what was measured.
        """
        self._draw(bool(shape.prefills))
        return self._seconds(shape)

    def group_step_time(self, shapes: Sequence[StepShape]) -> float:
        """Of ranks that step together: a slow moment is all of theirs, and counts once."""
        self._draw(any(shape.prefills for shape in shapes))
        return max(self._seconds(shape) for shape in shapes if shape.num_tokens)

    def _draw(self, has_prompts: bool) -> None:
        if self._next_factor is not None:
            self._scatter = self._next_factor(has_prompts) / self._mean_scatter[has_prompts]

    def _seconds(self, shape: StepShape) -> float:
        beyond = self.calibration.beyond(shape)
        if beyond > FAR:
            raise CostModelError(
                f"a step of {shape.num_tokens} tokens in {shape.num_requests} rows is"
                f" {beyond:.1f} times beyond what {self._path} was measured on, and more than"
                f" {FAR:g} times is no honest price: calibrate with this run's limits"
            )
        return self.calibration.typical_s(shape) * self._factor(shape) * self._scatter

    def host_time(self, shape: StepShape) -> float:
        """The host's share of it, of the step that was asked for last."""
        return self.calibration.host(shape) * self._factor(shape) * self._scatter

    def is_extrapolated(self, shape: StepShape) -> bool:
        """Whether the step is larger in anything than all that were measured."""
        return self.calibration.beyond(shape) > 1.0


class CalibratedCostModel(CalibratedPrices):
    """The same from a file, for the model and the GPU that it was measured with.

    Args:
        path: A file of `python -m experiments.calibrate`.
        allow_mismatch: Use the calibration of another model or GPU.
        slowdown, pace, noise: See `CalibratedPrices`.
        model: The simulated model; None: not checked.
        hardware: The simulated GPU; None: not checked. A calibration on a CPU fits any.

    Raises:
        ConfigError: The file is missing, no calibration, or one of something else.
    """

    def __init__(
        self,
        path: str,
        allow_mismatch: bool = False,
        slowdown: float | Sequence[float] = 1.0,
        pace: float | Sequence[float] | None = None,
        noise: int | None = None,
        model: ModelConfig | None = None,
        hardware: HardwareConfig | None = None,
    ) -> None:
        super().__init__(Calibration.load(Path(path)), slowdown, pace, noise, f"calibration {path}")
        if not allow_mismatch:
            if model is not None:
                check_model(self.calibration, path, model)
            name = self.calibration.facts.get("device_name")
            if hardware is not None and name:
                check_gpu(hardware.name, [str(name)], Path(path))


def _each_second(name: str, given: float | Sequence[float], least: float) -> Sequence[float]:
    values = [given] if isinstance(given, int | float) else list(given)
    for value in values:
        check_number(f"cost_model.{name}", value, at_least=least, below=1e6)
    if not values:
        raise ConfigError(f"cost_model.{name}=[] is empty: give a number, or one a second")
    return values


def check_model(calibration: Calibration, path: str, model: ModelConfig) -> None:
    """Refuse a calibration of another model.

    Raises:
        ConfigError: Naming what differs.
    """
    told = calibration.facts.get("model")
    if not isinstance(told, dict):
        return
    for name in SIZES:
        ours, theirs = getattr(model, name), told.get(name)
        if theirs is not None and theirs != ours:
            raise ConfigError(
                f"calibration {path} was measured with {name}={theirs}, and {model.name} has"
                f" {ours}: calibrate this model, or set cost_model.allow_mismatch=true"
            )
