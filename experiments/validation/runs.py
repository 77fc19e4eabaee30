"""Runs the cases of a validation: on the engine once, watched; in the simulator as often as asked.

Knows folders and what is measured beside a run: who else used the machine, and how long one fixed
step took before and after it. What is there already is kept.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from experiments.job import run_into
from experiments.machine_watch import MachineWatch, wait_for_quiet
from experiments.provenance import Stopwatch
from experiments.run_folder import REQUESTS, STEPS, RunFolder, fingerprint, write_json
from experiments.tables import read_requests_frame, read_steps_frame
from experiments.validation.settings import ValidateSettings
from simulator.calibration import Calibration
from workbench.errors import ConfigError

WATCH = "watch.json"
ENGINE, SIMULATOR, CORRECTED = "engine", "simulator", "simulator_at_its_speed"
PROBES = 12  # steps of a probe
PATIENCE_S = 20.0  # of waiting for a quiet machine before a run
SAME = ("device", "device_name", "dtype", "torch_threads")


class World:
    """What one run left behind.

    Attributes:
        folder: Of the run.
        summary: Its numbers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.summary: dict[str, Any] = RunFolder(folder).summary()

    def requests(self) -> pd.DataFrame:
        """A row a request."""
        return read_requests_frame(self.folder / REQUESTS)

    def steps(self) -> pd.DataFrame:
        """A row a step."""
        return read_steps_frame(self.folder / STEPS)


class Prober:
    """Times one fixed step, to see how fast the machine is now.

    Only ratios of its answers mean anything: the step is one of many that were calibrated.

    Args:
        config: Of the calibrated engine.
        calibration: What the step took when it was calibrated.

    Raises:
        ConfigError: The calibration is of another device, number format or number of threads.
    """

    def __init__(self, config: DictConfig, calibration: Calibration, file: Path) -> None:
        from engine.benchmarks.step_table import Limits, Point, synthetic_steps
        from experiments.assemble import part

        assembly = part(config, "backend").assemble(config)
        engine = assembly.facts["engine"]
        for name in SAME:
            ours, theirs = engine[name], calibration.facts.get(name, engine[name])
            if ours != theirs:
                raise ConfigError(
                    f"calibration {file} was measured with {name}={theirs}, and this engine has"
                    f" {ours}: calibrate again, or run as it was (OMP_NUM_THREADS, backend.…)"
                )
        limits = Limits.of(assembly.parts)
        self._parts = assembly.parts
        self._point = Point(max(limits.num_rows // 2, 1), limits.length // 5)
        self._steps = synthetic_steps(self._parts)
        self._calibration = calibration

    def slowdown(self) -> float:
        """Seconds of the step now over what the calibration says."""
        from engine.benchmarks.step_table import measure

        step = measure(self._parts, self._steps, self._point, PROBES)
        return step.seconds / self._calibration.device(step.shape)


def run_on_engine(
    folder: Path, config: DictConfig, prober: Prober, settings: ValidateSettings
) -> World:
    """Run a case on the engine, and again while others disturb it; what is there is kept."""
    target = folder / ENGINE
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if RunFolder(target).is_finished(fingerprint(plain)) and (folder / WATCH).exists():
        return World(target)
    tries: list[dict[str, Any]] = []
    for number in range(settings.tries):
        place = folder / f"try_{number}"
        place.mkdir(parents=True, exist_ok=True)
        wait_for_quiet(settings.disturbed, PATIENCE_S)
        before, watch = prober.slowdown(), MachineWatch()
        run_into(RunFolder(place), config, stopwatch=Stopwatch())
        others = watch.others()
        tries.append({"before": before, "after": prober.slowdown(), "others": others or 0.0})
        if tries[-1]["others"] <= settings.disturbed:
            break
    best = min(range(len(tries)), key=lambda i: tries[i]["others"])
    _keep(folder, best, len(tries))
    write_json(folder / WATCH, tries[best] | {"tries": len(tries)})
    return World(target)


def _keep(folder: Path, best: int, number: int) -> None:
    """The best try becomes the run."""
    import shutil

    shutil.rmtree(folder / ENGINE, ignore_errors=True)
    (folder / f"try_{best}").rename(folder / ENGINE)
    for i in range(number):
        shutil.rmtree(folder / f"try_{i}", ignore_errors=True)


def watched(folder: Path) -> dict[str, Any]:
    """What was seen beside a run."""
    seen: dict[str, Any] = json.loads((folder / WATCH).read_text(encoding="utf-8"))
    return seen


def slowdowns(seen: Sequence[Mapping[str, Any]]) -> list[float]:
    """How much slower the machine was around each run than around the middle one of them."""
    around = [float((one["before"] * one["after"]) ** 0.5) for one in seen]
    return [value / median(around) for value in around]


def simulate(folder: Path, name: str, config: DictConfig) -> World:
    """Run a case in the simulator; always anew, it takes no time."""
    target = folder / name
    run_into(RunFolder(target), config, stopwatch=Stopwatch())
    return World(target)
