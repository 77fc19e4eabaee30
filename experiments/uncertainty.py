"""How sure a simulation is: the run again and again, each time with errors drawn anew.

Knows which numbers of a summary get an interval, and how one comes from many runs. What the errors
are is known by the cost model's own `Spread`. The workload stays the same: an interval says how
well this run is known, not how another one would go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from experiments.prediction_interval import prediction_interval, reached_level
from experiments.run_folder import CHARTS, RunFolder
from experiments.schema import settings as run_settings_of
from simulator.cost_models.base import CostModel
from simulator.cost_models.calibrated import CalibratedPrices
from simulator.cost_models.uncertain import Spread, UncertainCostModel
from workbench.config import at_least, check_types
from workbench.errors import ConfigError
from workbench.metrics import RequestColumns, RunResult, summarize

if TYPE_CHECKING:
    from experiments.assemble import Assembly

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s")
STATISTICS = ("mean", "p50", "p90", "p95", "p99")
RATES = (
    "duration_s",
    "output_tokens_per_s",
    "requests_per_s",
    "goodput_requests_per_s",
    "preemptions",
    "prefix_hit_rate",
)
HEADLINES = (*RATES, *(f"{name}_{statistic}" for name in LATENCIES for statistic in STATISTICS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """The settings `uncertainty.…`.

    Attributes:
        runs: Simulations with errors drawn; from 19 on they can tell an interval of 0.9.
        level: Of the interval: how probable it is that one more draw lies within.
        model_error: Of a whole run, relative standard deviation, beside what a calibration knows;
            needed with a cost model that was not calibrated.
    """

    runs: int = 20
    level: float = 0.9
    model_error: float | None = None

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 2, "runs")
        if not 0.0 < self.level < 1.0:
            raise ConfigError(f"level={self.level} must be between 0 and 1")


def drawn_runs(
    assembly: "Assembly", runs: int, seed: int, model_error: float | None = None
) -> list[RunResult]:
    """The assembly's run with errors drawn, `runs` times.

    Raises:
        ConfigError: A cost model that states no error, and none is given.
    """
    cost_model = assembly.cost_model
    if isinstance(cost_model, CalibratedPrices) and not cost_model.is_repeatable:
        raise ConfigError(
            "uncertainty draws the noise of steps itself: leave cost_model.noise out, and give one"
            " pace or slowdown instead of one a second"
        )
    if not isinstance(cost_model, CostModel) or not cost_model.is_repeatable:
        raise ConfigError(
            f"uncertainty: {type(cost_model).__name__} replays what was recorded and has no errors"
            " to draw: choose another cost model, or leave uncertainty out"
        )
    spread = Spread.of(cost_model, model_error)
    seeds = np.random.SeedSequence(seed).spawn(runs)
    results = []
    for child in seeds:
        drawn = UncertainCostModel(cost_model, spread, int(child.generate_state(1)[0]))
        results.append(replace(assembly, cost_model=drawn).start().run())
    return results


def summaries(assembly: "Assembly", results: Sequence[RunResult]) -> list[dict[str, Any]]:
    """A summary of each run."""
    return [
        dict(
            summarize(
                RequestColumns.from_records(result.records),
                result.steps,
                assembly.slo,
                replicas=assembly.cluster.replicas,
                num_kv_blocks=assembly.num_kv_blocks,
                counters=result.counters,
            )
        )
        for result in results
    ]


def intervals(
    told: Sequence[Mapping[str, Any]], level: float, names: Sequence[str] = HEADLINES
) -> dict[str, Any]:
    """`NAME_low` and `NAME_high` of each number that all runs have."""
    found: dict[str, Any] = {}
    for name in names:
        values = [summary[name] for summary in told if summary.get(name) is not None]
        if len(values) < len(told):
            continue
        low, high = prediction_interval(values, level)
        found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def add_intervals(folder: RunFolder, config: DictConfig, assembly: Any) -> dict[str, Any]:
    """What the summary of a run gets beside its numbers; the bands are drawn where charts are.

    Raises:
        ConfigError: The run was no simulation, or its cost model states no error.
    """
    from experiments.assemble import Assembly

    settings: Uncertainty = run_settings_of(config, "uncertainty")
    if not isinstance(assembly, Assembly):
        raise ConfigError(
            "uncertainty: errors are drawn for a simulation, and backend=engine measures: leave it"
            " out, or use backend=simulator"
        )
    results = drawn_runs(assembly, settings.runs, int(config.seed), settings.model_error)
    level = reached_level(settings.level, settings.runs)
    if config.charts:
        from experiments.figures.style import save
        from experiments.figures.uncertainty_bands import latency_bands

        tables = [RequestColumns.from_records(result.records) for result in results]
        save(latency_bands(tables, level), folder.path / CHARTS / "uncertainty.png")
    stated = {"uncertainty_level": level, "uncertainty_runs": settings.runs}
    return stated | intervals(summaries(assembly, results), level)
