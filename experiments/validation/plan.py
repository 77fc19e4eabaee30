"""Which runs a validation consists of, and the config of each in either world.

Knows how a load becomes a rate: the workload's own rate is scaled to a part of the capacity that
was measured.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.assemble import part
from experiments.budget import scheduler_config
from experiments.run import compose_config
from experiments.validation.settings import ValidateSettings
from workbench.config import SchedulerConfig
from workbench.errors import ConfigError

# what a validation decides itself
OWN = ("backend=", "cost_model=", "cost_model.", "variant=")
QUIET = ("charts=false", "timeline=false", "progress=false")
AT_ONCE = 1e6  # rate_scale of a burst
BURSTS = 3  # that tell the capacity …
BATCHES = 6  # … each of so many full batches
FEWEST = 12  # requests of a run


@dataclass(frozen=True, slots=True)
class Case:
    """One run: a load, a policy and a number of its repetition."""

    load: float
    policy: str
    repeat: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"load_{self.load:g}/{self.policy}/{self.repeat}"


class Plan:
    """The runs of a validation.

    Args:
        overrides: Of the user: model, workload, limits.
        settings: Loads and policies.

    Raises:
        ConfigError: A workload whose rate cannot be set.
    """

    def __init__(self, overrides: Sequence[str], settings: ValidateSettings) -> None:
        self._overrides = [o for o in overrides if not o.startswith(OWN) or "backend." in o]
        self._settings = settings
        base = self._compose(settings.policies[0], ["backend=engine"])
        missing = [n for n in ("rate_scale", "num_requests", "seed") if n not in base.workload]
        if missing:
            raise ConfigError(
                f"workload.{missing[0]} is not there: validate needs a workload whose rate and"
                " length it can set, e.g. workload=validation"
            )
        self.seed = int(base.seed)
        self._own_rate = _rate(base)

    def cases(self) -> Iterator[Case]:
        """All runs; policies follow each other closely, so that none has the machine's bad hour."""
        settings = self._settings
        for repeat in range(settings.repeats):
            for load in settings.loads:
                for policy in settings.policies:
                    yield Case(float(load), policy, repeat)

    def capacity_runs(self) -> list[DictConfig]:
        """The engine with requests enough to be full for a while, all at once; a few times."""
        policy = self._settings.policies[0]
        rows = self._scheduler(policy).max_num_seqs
        burst = [f"workload.rate_scale={AT_ONCE}", f"workload.num_requests={BATCHES * rows}"]
        seeds = range(self.seed, self.seed + BURSTS)
        return [self._compose(policy, ["backend=engine", *burst, f"seed={s}"]) for s in seeds]

    def calibration_config(self) -> DictConfig:
        """The engine with the largest budget that a policy asks for.

        It is that of the policy with the smallest: all budgets are allowed there, and one that
        needs whole prompts in a step allows no small ones.
        """
        budgets = self._budgets()
        policy = min(budgets, key=budgets.__getitem__)
        budget = f"scheduler.max_num_batched_tokens={max(budgets.values())}"
        return self._compose(policy, ["backend=engine", budget])

    def budgets(self) -> tuple[int, ...]:
        """Tokens of a step that policies ask for, each number once, the largest last."""
        return tuple(sorted(set(self._budgets().values())))

    def _budgets(self) -> dict[str, int]:
        """Tokens of a step that each policy asks for."""
        return {p: self._scheduler(p).max_num_batched_tokens for p in self._settings.policies}

    def _scheduler(self, policy: str) -> SchedulerConfig:
        """The limits of the engine's steps under a policy."""
        config = self._compose(policy, ["backend=engine"])
        return scheduler_config(config, part(config, "model"), part(config, "batch_policy"))

    def on_engine(self, case: Case, capacity: float) -> DictConfig:
        """The config of a run on the engine; `capacity` in requests a second."""
        return self._compose(case.policy, ["backend=engine", *self._workload(case, capacity)])

    def simulated(
        self,
        case: Case,
        capacity: float,
        num_kv_blocks: int,
        path: Path,
        speed: Mapping[str, Sequence[float]] | None = None,
        noise: int | None = None,
    ) -> DictConfig:
        """The config of the same run in the simulator.

        `speed`: The cost model's setting of how fast the machine is, second by second.
        `noise`: Seed of the steps' scatter; None: every step takes its mean time.
        """
        calibrated = [
            "backend=simulator",
            "cost_model=calibrated",
            f"cost_model.path={path}",
            f"++cache.num_gpu_blocks_override={num_kv_blocks}",
        ]
        if noise is not None:
            calibrated.append(f"cost_model.noise={noise}")
        for name, values in (speed or {}).items():
            calibrated.append(f"cost_model.{name}=[{','.join(map(str, values))}]")
        return self._compose(case.policy, [*calibrated, *self._workload(case, capacity)])

    def _workload(self, case: Case, capacity: float) -> list[str]:
        rate = case.load * capacity
        number = max(int(rate * self._settings.seconds), FEWEST)
        scale = rate / self._own_rate
        seed = self.seed + case.repeat
        return [f"workload.rate_scale={scale}", f"workload.num_requests={number}", f"seed={seed}"]

    def _compose(self, policy: str, more: Sequence[str]) -> DictConfig:
        names = {override.partition("=")[0] for override in more}
        kept = [o for o in self._overrides if o.partition("=")[0] not in names]
        if "backend=simulator" in more:
            kept = [o for o in kept if not o.startswith("backend.")]
        return compose_config([*kept, f"variant={policy}", *QUIET, *more])


def _rate(config: DictConfig) -> float:
    """Requests a second of the workload as it is."""
    plain: Any = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    plain.workload.num_requests = 2000
    plain.workload.rate_scale = 1.0
    workload = part(plain, "workload")
    times = [item.arrival_time for item in workload.initial()]
    if len(times) < 2 or times[-1] <= times[0]:
        raise ConfigError("workload: its requests come all at once, and a load is a rate")
    return (len(times) - 1) / (times[-1] - times[0])
