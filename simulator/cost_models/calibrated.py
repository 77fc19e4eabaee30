"""Step times of one machine, from the file that its calibration left.

Knows prices and ranges; how they were measured and fitted is known by `simulator.calibration`.
The calibration's model and GPU are checked against those that are simulated.
"""

from collections.abc import Sequence
from pathlib import Path

from simulator.bounds import check_number
from simulator.calibration.calibration import Calibration
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


class CalibratedCostModel(CostModel):
    """Mean seconds of a step as they were measured.

    Args:
        path: A file of `python -m experiments.calibrate`.
        allow_mismatch: Use the calibration of another model or GPU.
        slowdown: Seconds of a step now over those when it was calibrated; a machine is not always
            equally fast. Several: one for each second of simulated time, the last one goes on.
        model: The simulated model; None: not checked.
        hardware: The simulated GPU; None: not checked. A calibration on a CPU fits any.

    Raises:
        ConfigError: The file is missing, no calibration, or one of something else.
    """

    is_bounded = True

    def __init__(
        self,
        path: str,
        allow_mismatch: bool = False,
        slowdown: float | Sequence[float] = 1.0,
        model: ModelConfig | None = None,
        hardware: HardwareConfig | None = None,
    ) -> None:
        self._path = path
        self.calibration = Calibration.load(Path(path))
        if not allow_mismatch:
            if model is not None:
                check_model(self.calibration, path, model)
            name = self.calibration.facts.get("device_name")
            if hardware is not None and name:
                check_gpu(hardware.name, [str(name)], Path(path))
        factor = self.calibration.jitter.mean_factor
        self._factors = tuple(factor * value for value in _slowdowns(slowdown))
        self.wants_time = len(self._factors) > 1
        self.is_repeatable = not self.wants_time
        self.wants_longest_decode = self.calibration.wants_longest_decode

    @property
    def _factor(self) -> float:
        """Mean seconds of a step that begins now, over those of a typical one."""
        return self._factors[min(int(self.now), len(self._factors) - 1)]

    def step_time(self, shape: StepShape) -> float:
        """Seconds of a step.

        Raises:
            CostModelError: More than 8 times beyond what was measured.
        """
        beyond = self.calibration.beyond(shape)
        if beyond > FAR:
            raise CostModelError(
                f"a step of {shape.num_tokens} tokens in {shape.num_requests} rows is"
                f" {beyond:.1f} times beyond what {self._path} was measured on, and more than"
                f" {FAR:g} times is no honest price: calibrate with this run's limits"
            )
        return self.calibration.typical_s(shape) * self._factor

    def host_time(self, shape: StepShape) -> float:
        """The host's share of it."""
        return self.calibration.host(shape) * self._factor

    def is_extrapolated(self, shape: StepShape) -> bool:
        """Whether the step is larger in anything than all that were measured."""
        return self.calibration.beyond(shape) > 1.0


def _slowdowns(given: float | Sequence[float]) -> Sequence[float]:
    values = [given] if isinstance(given, int | float) else list(given)
    for value in values:
        check_number("cost_model.slowdown", value, at_least=0.01, below=100.0)
    if not values:
        raise ConfigError("cost_model.slowdown=[] is empty: give a number, or one a second")
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
