"""The measurements of one calibration: those that its folder holds, and those to come.

Knows the order in which things are measured, files, and when a measurement is repeated. How an
engine is timed is known by `engine.benchmarks`.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.bursts import burst_workload
from experiments.machine_watch import Disturbance
from experiments.pace_log import PaceLog
from experiments.run_folder import write_json
from experiments.steady_cpus import SteadyCpus
from simulator.calibration import fit
from simulator.calibration.fit import FIRST
from workbench.config import at_least, check_types
from workbench.errors import ConfigError
from workbench.step_profile import (
    STEP_COLUMNS,
    MeasuredStep,
    check_columns,
    read_steps,
    step_row,
    write_steps,
)

if TYPE_CHECKING:
    from engine.benchmarks.served_steps import ServedSteps
    from experiments.assemble_engine import EngineAssembly

GRID, STATE = "grid.csv", "rounds.json"
TRIES = 4
LOOK_EVERY = 10  # points of the grid


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateSettings:
    """How much is measured.

    Attributes:
        rounds: Passes over the grid, and recordings.
        repeats: Steps timed at a point of the grid in each pass.
        serve_s: Seconds of a recording, about.
        disturbed: CPUs that others may use during a recording before it is repeated.
        steady: Whether the engine's CPUs are kept awake and watched. Then steps take the time that
            they take on such CPUs, a little less than those of a server that is idle now and then.
        slowed: How much slower than at their best watched CPUs may be before a recording is
            repeated, as a part. Prices are those of a typical pace, whatever it was.
        patience_s: Seconds to wait for a quiet machine before each measurement.
        budgets: `max_num_batched_tokens` that each recording is served with, one after the other;
            none: the engine's own. For prices that policies with several budgets are simulated
            with: full steps of the smaller are rare in recordings with the larger.
    """

    rounds: int = 4
    repeats: int = 3
    serve_s: float = 8.0
    disturbed: float = 0.15
    steady: bool = False
    slowed: float = 1.0
    patience_s: float = 20.0
    budgets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "rounds", "repeats")
        at_least(self, 0.01, "serve_s")
        at_least(self, 0, "disturbed", "slowed", "patience_s")
        is_list = isinstance(self.budgets, tuple)
        if not is_list or any(type(budget) is not int or budget < 1 for budget in self.budgets):
            raise ConfigError(f"budgets={self.budgets!r} must be a list of tokens a step: [A,B]")


class CalibrationSession:
    """The measurements of one folder: those that are there, and those to come.

    Args:
        assembly: The engine.
        folder: Where the measurements are kept.
        settings: How much is measured.
        cpus: The engine's CPUs, watched.

    Raises:
        ConfigError: A budget of the recordings that the engine does not allow.
    """

    def __init__(
        self,
        assembly: "EngineAssembly",
        folder: Path,
        settings: CalibrateSettings,
        cpus: SteadyCpus,
    ) -> None:
        from engine.benchmarks.step_table import Limits, grid

        self._assembly, self._folder, self._settings = assembly, folder, settings
        self._cpus = cpus
        self._limits = Limits.of(assembly.parts)
        self._points = grid(self._limits)
        self._seen: dict[str, Disturbance] = {}
        self._budgets = settings.budgets or (self._limits.num_tokens,)
        for budget in settings.budgets:  # refused now, not after a pass over the grid
            try:
                assembly.with_budget(budget)
            except ConfigError as error:
                raise ConfigError(f"calibrate.budgets={list(settings.budgets)}: {error}") from error

    def measure(self) -> list[MeasuredStep]:
        """All steps, once everything has been measured."""
        from tqdm import tqdm

        rounds = self._settings.rounds
        with tqdm(total=rounds * (len(self._points) + 1), disable=None, unit="step") as bar:
            for number in range(rounds):
                bar.set_description(f"round {number + 1} of {rounds}, grid")
                self._pass(number, bar)
                bar.set_description(f"round {number + 1} of {rounds}, serving")
                self._record(number)
                bar.update()
                if bar.disable:  # nobody watches the bar: a log gets a line instead
                    print(f"round {number + 1} of {rounds} is measured", file=sys.stderr)
        return self.steps()

    def _pass(self, number: int, bar: Any) -> None:
        """One pass over the grid, in an order of its own; a slow machine is waited for."""
        from engine.benchmarks.step_table import measure_grid

        source = f"grid/{number}"
        num_known = sum(step.source == source for step in self._grid())
        order = np.random.default_rng(number).permutation(len(self._points))[num_known:]
        bar.update(num_known)
        points = [self._points[i] for i in order.tolist()]
        if points:
            self._wait()
        with (self._folder / GRID).open("a", encoding="utf-8") as file:
            watch = self._cpus.watch()
            timed = measure_grid(self._assembly.parts, points, self._settings.repeats)
            for place, step in enumerate(timed, 1):
                pace = self._cpus.paces.near(time.monotonic())
                row = step_row(replace(step, source=source, pace=pace))
                file.write(",".join(row) + "\n")
                file.flush()
                bar.update()
                if place % LOOK_EVERY == 0:
                    if not self._is_quiet(watch.seen()):
                        self._wait()
                    watch = self._cpus.watch()

    def _wait(self) -> None:
        settings = self._settings
        self._cpus.wait(settings.disturbed, settings.slowed, settings.patience_s)

    def _is_quiet(self, seen: Disturbance) -> bool:
        return seen.is_within(self._settings.disturbed, self._settings.slowed)

    def _grid(self) -> list[MeasuredStep]:
        """What the grid's file holds, after half a line that a killed process has left."""
        file = self._folder / GRID
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        whole = text[: text.rfind("\n") + 1] or ",".join(STEP_COLUMNS) + "\n"
        if whole != text:
            file.write_text(whole, encoding="utf-8")
        check_columns(file)
        return read_steps(file)

    def _record(self, number: int) -> None:
        """Serve bursts and keep their steps; again where others used the machine."""
        file = self._run_file(number)
        if file.exists():
            return
        best: tuple[Disturbance, list[MeasuredStep]] | None = None
        for attempt in range(TRIES):
            self._wait()
            watch = self._cpus.watch()
            served = [self._serve(number, attempt, budget) for budget in self._budgets]
            seen = watch.seen()
            if best is None or seen.harm < best[0].harm:
                paces = self._cpus.paces
                best = (seen, [step for one in served for step in _recorded(one, number, paces)])
            if self._is_quiet(seen):
                break
        assert best is not None
        draft = file.with_suffix(".part")
        write_steps(draft, best[1])
        draft.replace(file)
        self._seen[f"run/{number}"] = best[0]
        budgets = {"budgets": list(self._budgets)}
        told = {name: seen.told() | budgets for name, seen in self._seen.items()}
        write_json(self._folder / STATE, self._known_state() | told)

    def _serve(self, number: int, attempt: int, budget: int) -> "ServedSteps":
        """The steps of some bursts with so many tokens a step at most."""
        from engine.benchmarks.served_steps import serve

        parts = self._assembly.with_budget(budget)
        workload = self._bursts(number, attempt, budget)
        return serve(parts, workload, f"run/{number}", number)[1]

    def _bursts(self, number: int, attempt: int, budget: int) -> Any:
        limits, parts = self._limits, self._assembly.parts
        held = parts.num_blocks * parts.cache_config.block_size // 2
        return burst_workload(
            fit(self._medians()),
            budget,
            limits.num_rows,
            min(limits.length, held),
            self._settings.serve_s / len(self._budgets),
            seed=TRIES * number + attempt,
            block_size=parts.cache_config.block_size,
        )

    def _run_file(self, number: int) -> Path:
        return self._folder / f"run_{number}.csv"

    def steps(self) -> list[MeasuredStep]:
        """Medians of the grid, and every recorded step."""
        found = self._medians()
        for number in range(self._settings.rounds):
            if (file := self._run_file(number)).exists():
                found += read_steps(file)
        return found

    def _medians(self) -> list[MeasuredStep]:
        """One step a point: the median over the passes."""
        return median_steps(self._grid())

    def _known_state(self) -> dict[str, Any]:
        file = self._folder / STATE
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def facts(self) -> dict[str, Any]:
        """What the calibration says of the measurement."""
        state = self._known_state()
        return {
            "grid_points": len(self._points),
            "rounds": self._settings.rounds,
            "recorded_budgets": sorted({b for seen in state.values() for b in seen["budgets"]}),
            "cpus_used_by_others": {n: seen["others"] for n, seen in state.items()},
            "slowed": {n: seen["slowed"] for n, seen in state.items()},
        }


def _recorded(served: "ServedSteps", number: int, paces: PaceLog) -> list[MeasuredStep]:
    """The steps of a recording; those that found the engine idle were timed without a host."""
    first = [
        replace(step, source=f"{FIRST}/{number}", pace=paces.near(end))
        for step, end in zip(served.first, served.first_ends, strict=True)
    ]
    busy = [
        replace(step, pace=paces.near(end))
        for step, end in zip(served.busy, served.busy_ends, strict=True)
    ]
    return [*first, *busy]


def median_steps(steps: Sequence[MeasuredStep], source: str = "grid") -> list[MeasuredStep]:
    """Steps of equal shape as one, with the median of their times and the pace that it had."""
    found: dict[Any, list[MeasuredStep]] = {}
    for step in steps:
        shape = step.shape
        counts = (shape.num_decodes, shape.decode_context, shape.num_samples)
        contexts = (shape.longest_decode, shape.shared_context, shape.prefill_tokens_before)
        key = (*counts, tuple(shape.prefills), shape.num_swap_blocks, *contexts)
        found.setdefault(key, []).append(step)
    return [_median_step(same, source) for same in found.values()]


def _median_step(same: Sequence[MeasuredStep], source: str) -> MeasuredStep:
    ordered = sorted(same, key=lambda step: step.seconds)
    middle = ordered[(len(same) - 1) // 2 : len(same) // 2 + 1]
    seconds = fmean(step.seconds for step in middle)
    pace = fmean(step.pace for step in middle)
    return MeasuredStep(same[0].shape, seconds, source=source, pace=pace)
