"""What a validation consists of: loads, policies, how long and how often."""

from dataclasses import dataclass

from workbench.config import at_least, check_types
from workbench.errors import ConfigError

LOADS = (0.2, 0.6, 0.9, 1.5)
POLICIES = ("chunked_prefill", "prefill_first_1k", "static_batching", "tiny_kv_cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateSettings:
    """The settings `validate.…`.

    Attributes:
        loads: Request rates, as parts of the capacity that the first policy was measured to have.
        policies: Options of the group `variant`.
        seconds: Of arrivals in a run, about.
        repeats: Runs of each load and policy, spread over time, each with a seed of its own.
        rounds: Of the calibration, before, between and after the runs.
        calibration: A file of `experiments.calibrate`; None: calibrate first, into the same folder.
        draws: Simulations of each run with the noise of steps drawn; their mean is the prediction.
            Without noise nobody would wait for a slow moment.
        runs: Simulations of each run with all errors drawn, for its band; from 19 on they can tell
            one of 0.9.
        level: Of the band.
        disturbed: CPUs that others may use during a run before it is repeated.
        steady: Whether the CPUs of an engine that runs on CPUs are kept awake and watched, during
            the calibration and the runs alike.
        slowed: How much slower than at their best watched CPUs may be before a run is repeated, as
            a part. How fast they were is taken into account besides.
        tries: Runs at most, for one that is disturbed; the least disturbed counts.
        patience_s: Seconds to wait for a quiet machine before each run.
    """

    loads: tuple[float, ...] = LOADS
    policies: tuple[str, ...] = POLICIES
    seconds: float = 12.0
    repeats: int = 1
    rounds: int = 4
    calibration: str | None = None
    draws: int = 8
    runs: int = 40
    level: float = 0.9
    disturbed: float = 0.15
    steady: bool = True
    slowed: float = 1.0
    tries: int = 3
    patience_s: float = 20.0

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "repeats", "draws", "runs", "tries")
        at_least(self, 2, "rounds")
        at_least(self, 0.5, "seconds")
        at_least(self, 0, "disturbed", "slowed", "patience_s")
        for name in ("loads", "policies"):
            if not isinstance(getattr(self, name), tuple) or not getattr(self, name):
                raise ConfigError(f"{name}={getattr(self, name)!r} must be a list: [A,B]")
        for load in self.loads:
            if isinstance(load, bool) or not isinstance(load, int | float) or not 0 < load <= 20:
                raise ConfigError(f"loads={load!r} must be above 0 and at most 20 times capacity")
        if not 0.0 < self.level < 1.0:
            raise ConfigError(f"level={self.level} must be between 0 and 1")
