"""The measurements of one calibration: those that its folder holds, and those to come.

Knows the order in which things are measured, files, and when a measurement is repeated. How an
engine is timed is known by `engine.benchmarks`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.bursts import burst_workload
from experiments.machine_watch import MachineWatch, wait_for_quiet
from experiments.run_folder import write_json
from simulator.calibration import fit
from workbench.config import at_least, check_types
from workbench.step_profile import (
    STEP_COLUMNS,
    MeasuredStep,
    read_steps,
    step_row,
    write_steps,
)

if TYPE_CHECKING:
    from experiments.assemble_engine import EngineAssembly

GRID, STATE = "grid.csv", "rounds.json"
TRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateSettings:
    """How much is measured.

    Attributes:
        rounds: Passes over the grid, and recordings.
        repeats: Steps timed at a point of the grid in each pass.
        serve_s: Seconds of a recording, about.
        disturbed: CPUs that others may use during a recording before it is repeated.
        patience_s: Seconds to wait for them before each measurement.
    """

    rounds: int = 4
    repeats: int = 3
    serve_s: float = 8.0
    disturbed: float = 0.15
    patience_s: float = 20.0

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "rounds", "repeats")
        at_least(self, 0.01, "serve_s")
        at_least(self, 0, "disturbed", "patience_s")


class CalibrationSession:
    """The measurements of one folder: those that are there, and those to come."""

    def __init__(
        self, assembly: "EngineAssembly", folder: Path, settings: CalibrateSettings
    ) -> None:
        from engine.benchmarks.step_table import Limits, grid

        self._assembly, self._folder, self._settings = assembly, folder, settings
        self._limits = Limits.of(assembly.parts)
        self._points = grid(self._limits)
        self._others: dict[str, float | None] = {}

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
        """One pass over the grid, in an order of its own."""
        from engine.benchmarks.step_table import measure_grid

        source = f"grid/{number}"
        num_known = sum(step.source == source for step in self._grid())
        order = np.random.default_rng(number).permutation(len(self._points))[num_known:]
        bar.update(num_known)
        points = [self._points[i] for i in order.tolist()]
        if points:
            self._wait()
        with (self._folder / GRID).open("a", encoding="utf-8") as file:
            for step in measure_grid(self._assembly.parts, points, self._settings.repeats):
                row = step_row(MeasuredStep(step.shape, step.seconds, step.host_s, source))
                file.write(",".join(row) + "\n")
                file.flush()
                bar.update()

    def _wait(self) -> None:
        wait_for_quiet(self._settings.disturbed, self._settings.patience_s)

    def _grid(self) -> list[MeasuredStep]:
        """What the grid's file holds, after half a line that a killed process has left."""
        file = self._folder / GRID
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        whole = text[: text.rfind("\n") + 1] or ",".join(STEP_COLUMNS) + "\n"
        if whole != text:
            file.write_text(whole, encoding="utf-8")
        return read_steps(file)

    def _record(self, number: int) -> None:
        """Serve bursts and keep their steps; again where others used the machine."""
        from engine.benchmarks.served_steps import serve

        file = self._run_file(number)
        if file.exists():
            return
        best: tuple[float, list[MeasuredStep]] | None = None
        for attempt in range(TRIES):
            self._wait()
            watch = MachineWatch()
            _, served = serve(
                self._assembly.parts, self._bursts(number, attempt), f"run/{number}", number
            )
            others = watch.others()
            if best is None or (others or 0.0) < best[0]:
                best = (others or 0.0, served.busy)
            if (others or 0.0) <= self._settings.disturbed:
                break
        assert best is not None
        draft = file.with_suffix(".part")
        write_steps(draft, best[1])
        draft.replace(file)
        self._others[f"run/{number}"] = best[0]
        write_json(self._folder / STATE, self._known_others() | self._others)

    def _bursts(self, number: int, attempt: int) -> Any:
        limits, parts = self._limits, self._assembly.parts
        held = parts.num_blocks * parts.cache_config.block_size // 2
        return burst_workload(
            fit(self._medians()),
            limits.num_tokens,
            limits.num_rows,
            min(limits.length, held),
            self._settings.serve_s,
            seed=TRIES * number + attempt,
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

    def _known_others(self) -> dict[str, Any]:
        file = self._folder / STATE
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def facts(self) -> dict[str, Any]:
        """What the calibration says of the measurement."""
        return {
            "grid_points": len(self._points),
            "rounds": self._settings.rounds,
            "cpus_used_by_others": self._known_others(),
        }


def median_steps(steps: Sequence[MeasuredStep], source: str = "grid") -> list[MeasuredStep]:
    """Steps of equal shape as one, with the median of their times."""
    found: dict[Any, list[MeasuredStep]] = {}
    for step in steps:
        shape = step.shape
        counts = (shape.num_decodes, shape.decode_context, shape.num_samples)
        key = (*counts, tuple(shape.prefills), shape.num_swap_blocks, shape.longest_decode)
        found.setdefault(key, []).append(step)
    return [
        MeasuredStep(same[0].shape, median(step.seconds for step in same), source=source)
        for same in found.values()
    ]
