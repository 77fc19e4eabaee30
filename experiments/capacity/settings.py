"""The settings of a capacity search: the group `capacity` of the config, checked.

Knows names, limits and their meaning. What the search does with them is known by `job`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from experiments.capacity.objectives import Objectives
from experiments.instantiate import accepts, describe
from workbench.errors import ConfigError

CAPACITY = "capacity"


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacitySettings:
    """How a capacity is searched for.

    Attributes:
        slo: Limits by name, in seconds; see `objectives`.
        tolerance: The rate found and the failing one above it differ by this share at most.
        requests_per_replica: Requests of a simulation, times the replicas; None: as many as the
            workload says (a trace has its own).
        warmup: Share of the requests, the first to arrive, that no objective looks at.
        growth: Share of the arrivals by which the backlog may grow while requests arrive.
        beyond: Factors above the rate that failed; tried too, to see whether a rate passes again.
        below: Shares of the rate found; simulated for the curves of latency and cost.
        max_simulations: Of one configuration; the search gives up after so many.

    Raises:
        ConfigError: A value out of its range, or of a wrong type.
    """

    slo: Mapping[str, float]
    tolerance: float = 0.02
    requests_per_replica: int | None = 3000
    warmup: float = 0.1
    growth: float = 0.02
    beyond: Sequence[float] = (1.1, 1.3)
    below: Sequence[float] = (0.25, 0.5, 0.7, 0.85, 0.95)
    max_simulations: int = 60

    def __post_init__(self) -> None:
        _check_range("tolerance", self.tolerance, 0.0, 1.0)
        _check_range("growth", self.growth, 0.0, 1.0)
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"{CAPACITY}.warmup={self.warmup} must be a share from 0 to below 1")
        for name, least in (("requests_per_replica", 20), ("max_simulations", 3)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{CAPACITY}.{name}={value} must be at least {least}")
        for factor in self.beyond:
            if not 1 < factor <= 10:
                raise ConfigError(f"{CAPACITY}.beyond: {factor} must be above 1 and at most 10")
        for share in self.below:
            _check_range("below", share, 0.0, 1.0)

    @property
    def objectives(self) -> Objectives:
        """The limits, checked."""
        return Objectives(self.slo)


def _check_range(name: str, value: float, above: float, below: float) -> None:
    if not above < value < below:
        raise ConfigError(f"{CAPACITY}.{name}={value} must be above {above:g} and below {below:g}")


def capacity_settings(config: DictConfig) -> CapacitySettings:
    """The settings of a composed config. Raises ConfigError naming `capacity.FIELD`."""
    values = cast(dict[str, Any], OmegaConf.to_container(config[CAPACITY], resolve=True))
    known = {field.name: field for field in fields(CapacitySettings)}
    hints = {
        "slo": None, "tolerance": float, "requests_per_replica": int | None, "warmup": float,
        "growth": float, "beyond": None, "below": None, "max_simulations": int,
    }  # fmt: skip
    for name, value in values.items():
        if name not in known:
            raise ConfigError(
                f"{CAPACITY}.{name}: there is no such setting; there are: {', '.join(known)}"
            )
        hint = hints[name]
        if hint is not None and not accepts(hint, value):
            raise ConfigError(f"{CAPACITY}.{name}={value!r}: expected {describe(hint)}")
        if name in ("beyond", "below") and not _are_numbers(value):
            raise ConfigError(f"{CAPACITY}.{name}={value!r}: expected a list of numbers: [0.5,0.9]")
    return CapacitySettings(**values)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(accepts(float, item) for item in value)
