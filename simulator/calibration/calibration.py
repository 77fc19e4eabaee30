"""A calibration: what steps cost on one machine, how sure that is, and where it was measured.

A small JSON file that a person can read. Knows its own format and ranges; how it is fitted is known
by `fit`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simulator.calibration.jitter import LASTING, LEVELS, Jitter
from simulator.calibration.machine_pace import MachinePace
from simulator.calibration.terms import COUNTS, CURVED, LEVELS_OFF, Curve, Prices, counts, curved
from workbench.errors import ConfigError
from workbench.step_profile import StepShape

FORMAT = 7
DIGITS = 6
UNSEEN = 2.0
LISTS = ("quantiles", "quantiles_of_prompts", "lasting")  # of jitter


@dataclass(frozen=True)
class Calibration:
    """Prices of steps.

    Attributes:
        device: Typical seconds of a step without the host's share.
        host: Typical seconds in which the device waits for the host.
        jitter: How steps and runs differ from what is typical.
        jitter_at_pace: The same where the pace of the machine is known and taken into account.
        largest: Largest measured value of each of `COUNTS` and `CURVED`.
        residuals: Relative errors in and out of sample, by kind of measurement.
        facts: What was measured, where, when and with what; plain values.
        pace: How steps follow the pace of the machine, where it was told.
        mean_factor: Time of many steps that only decode over that of as many typical ones: what
            long steps add.
        mean_factor_of_prompts: The same of steps with prompts.
    """

    device: Prices
    host: Prices
    jitter: Jitter = field(default_factory=Jitter)
    largest: Mapping[str, float] = field(default_factory=dict)
    residuals: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    pace: MachinePace = field(default_factory=MachinePace)
    mean_factor: float = 1.0
    mean_factor_of_prompts: float = 1.0
    jitter_at_pace: Jitter = field(default_factory=Jitter)
    _limits: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        limits = tuple(
            math.inf if name in LEVELS_OFF else self.largest.get(name, 0.0)
            for name in (*COUNTS[1:], *CURVED)
        )
        object.__setattr__(self, "_limits", limits)

    @property
    def wants_longest_decode(self) -> bool:
        """Whether it matters how much longer one decode's context is than another's."""
        return "decode_padding" in self.device.curves

    def typical_s(self, shape: StepShape) -> float:
        """Typical seconds of a step, the host's share included."""
        return self.device(shape) + self.host(shape)

    def mean_s(self, shape: StepShape) -> float:
        """Mean seconds of a step: what a simulation without chance uses."""
        return self.typical_s(shape) * self.mean_factor_of(bool(shape.prefills))

    def mean_factor_of(self, has_prompts: bool) -> float:
        """Mean over typical seconds of steps with prompts, or of steps that only decode."""
        return self.mean_factor_of_prompts if has_prompts else self.mean_factor

    def beyond(self, shape: StepShape) -> float:
        """How many times the largest measured value the step asks for; at most 1 inside.

        A part of which nothing was measured, such as swapped blocks, counts as twice.
        """
        asked = (*counts(shape)[1:], *curved(shape))
        ratios = [
            value / limit if limit else UNSEEN
            for value, limit in zip(asked, self._limits, strict=True)
            if value
        ]
        return max(ratios, default=0.0)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        document = {
            "format": FORMAT,
            "facts": dict(self.facts),
            "device": _prices_out(self.device),
            "host": _prices_out(self.host),
            "jitter": asdict(self.jitter),
            "jitter_at_pace": asdict(self.jitter_at_pace),
            "pace": asdict(self.pace),
            "mean_factor": self.mean_factor,
            "mean_factor_of_prompts": self.mean_factor_of_prompts,
            "largest": dict(self.largest),
            "residuals": dict(self.residuals),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".part")
        draft.write_text(json.dumps(_rounded(document), indent=2) + "\n", encoding="utf-8")
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Read the file.

        Raises:
            ConfigError: It is missing, or no calibration of this format.
        """
        if not path.is_file():
            raise ConfigError(
                f"calibration {path} does not exist: python -m experiments.calibrate writes one"
            )
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise ConfigError(
                    f"calibration {path} has format {document['format']}, and this program reads"
                    f" {FORMAT}: calibrate again"
                )
            return cls(
                _prices_in(document["device"]),
                _prices_in(document["host"]),
                _jitter_in(document["jitter"]),
                document["largest"],
                document["residuals"],
                document["facts"],
                MachinePace(**document["pace"]),
                float(document["mean_factor"]),
                float(document["mean_factor_of_prompts"]),
                _jitter_in(document["jitter_at_pace"]),
            )
        except ConfigError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"calibration {path} cannot be read ({type(error).__name__}: {error}): calibrate"
                " again"
            ) from None


def _jitter_in(document: Mapping[str, Any]) -> Jitter:
    lists = {name: tuple(map(float, document[name])) for name in LISTS}
    if tuple(map(len, lists.values())) != (len(LEVELS), len(LEVELS), len(LASTING)):
        raise ValueError("jitter of another size")
    return Jitter(**{**document, **lists})


def _prices_out(prices: Prices) -> dict[str, Any]:
    curves = {
        name: {"nodes": list(curve.nodes), "slopes": list(curve.slopes)}
        for name, curve in prices.curves.items()
    }
    return {"seconds": dict(prices.seconds), "curves": curves}


def _prices_in(document: Mapping[str, Any]) -> Prices:
    seconds, curves = document["seconds"], document["curves"]
    unknown = (set(seconds) - set(COUNTS)) | (set(curves) - set(CURVED))
    if unknown:
        raise ValueError(f"unknown count {min(unknown)}")
    return Prices(
        {name: float(value) for name, value in seconds.items()},
        {name: _curve_in(curve) for name, curve in curves.items()},
    )


def _curve_in(document: Mapping[str, Any]) -> Curve:
    return Curve(tuple(map(float, document["nodes"])), tuple(map(float, document["slopes"])))


def _rounded(value: Any) -> Any:
    """Floats with six digits that count; numpy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(name): _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.{DIGITS}g}")
    return value
