"""Runs the cases of a validation: on the engine once, watched; in the simulator as often as asked.

Knows folders and what is seen beside a run: who else used the machine, and how fast the machine
was. What is there already is kept.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from experiments.errors import latency_errors, means
from experiments.job import run_into
from experiments.machine_watch import Disturbance
from experiments.provenance import Stopwatch
from experiments.run_folder import REQUESTS, STEPS, RunFolder, fingerprint, write_json
from experiments.steady_cpus import SteadyCpus
from experiments.tables import read_requests_frame, read_steps_frame, requests_frame, steps_frame
from experiments.uncertainty import summaries
from experiments.validation.compare import ENGINE
from experiments.validation.settings import ValidateSettings
from simulator.calibration import Calibration
from workbench.errors import ConfigError

WATCH = "watch.json"
WRITING_S = 0.5  # about, from a run's end until its files are written
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


def check_same_engine(config: DictConfig, calibration: Calibration, file: Path) -> None:
    """Refuse a calibration of an engine that is not the one to be run.

    Raises:
        ConfigError: It is of another device, number format or number of threads.
    """
    from experiments.assemble import part

    engine = part(config, "backend").assemble(config).facts["engine"]
    for name in SAME:
        ours, theirs = engine[name], calibration.facts.get(name, engine[name])
        if ours != theirs:
            raise ConfigError(
                f"calibration {file} was measured with {name}={theirs}, and this engine has"
                f" {ours}: calibrate again, or run as it was (OMP_NUM_THREADS, backend.…)"
            )


def run_on_engine(
    folder: Path, config: DictConfig, settings: ValidateSettings, cpus: SteadyCpus
) -> World:
    """Run a case on the engine, and again while others disturb it; what is there is kept."""
    target = folder / ENGINE
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if RunFolder(target).is_finished(fingerprint(plain)) and (folder / WATCH).exists():
        return World(target)
    limits = (settings.disturbed, settings.slowed)
    tries: list[Disturbance] = []
    paces: list[list[float]] = []
    for number in range(settings.tries):
        place = folder / f"try_{number}"
        place.mkdir(parents=True, exist_ok=True)
        cpus.wait(*limits, settings.patience_s)
        watch = cpus.watch()
        summary = run_into(RunFolder(place), config, stopwatch=Stopwatch())
        tries.append(watch.seen())
        now = time.monotonic()
        paces.append(cpus.paces.during(now - WRITING_S - summary["duration_s"], now).tolist())
        if tries[-1].is_within(*limits):
            break
    best = min(range(len(tries)), key=lambda i: tries[i].harm)
    _keep(folder, best, len(tries))
    told = {"tries": len(tries), "paces": [float(f"{pace:.4g}") for pace in paces[best]]}
    write_json(folder / WATCH, tries[best].told() | told)
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


def pace(engine: pd.DataFrame, simulated: pd.DataFrame) -> float:
    """How many times as long as the simulator's the engine's steps took.

    The median over the engine's steps that only decode, each against the median of the simulated
    ones with as many rows; 1 where no number of rows occurs in both. Prompts and queues have no
    part in it, so what is left of an error at this pace is not the machine's.
    """

    def decodes(steps: pd.DataFrame) -> pd.DataFrame:
        return steps[(steps["prefill_tokens"] == 0) & (steps["decode_tokens"] > 0)]

    own = decodes(engine)
    typical = decodes(simulated).groupby("decode_tokens")["duration_s"].median()
    ratios = (own["duration_s"] / own["decode_tokens"].map(typical)).dropna()
    return float(ratios.median()) if len(ratios) else 1.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the simulator says of a run, over several draws of the steps' noise.

    Attributes:
        steps: Of all draws.
        extrapolated_steps: Of the first draw, whose files are kept.
        summary: Means of the draws' numbers.
        errors: Means of the draws' errors, see `latency_errors`.
    """

    steps: pd.DataFrame
    extrapolated_steps: int
    summary: Mapping[str, Any]
    errors: Mapping[str, float]


def predict(
    folder: Path, name: str, configs: Sequence[DictConfig], measured: pd.DataFrame
) -> Prediction:
    """Run a case in the simulator, a draw a config; always anew, it takes no time.

    Args:
        folder, name: Where the first draw goes.
        configs: Of the draws.
        measured: The requests on the engine.
    """
    from experiments.assemble import Assembly

    target = folder / name
    run_into(RunFolder(target), configs[0], stopwatch=Stopwatch())
    world = World(target)
    told, errors = [world.summary], [latency_errors(measured, world.requests())]
    steps = [world.steps()]
    for config in configs[1:]:
        assembly = Assembly.from_config(config)
        result = assembly.start().run()
        told += summaries(assembly, [result])
        errors.append(latency_errors(measured, requests_frame(result.records)))
        steps.append(steps_frame(result.steps))
    return Prediction(
        pd.concat(steps, ignore_index=True),
        int(world.summary.get("extrapolated_steps", 0)),
        means(told),
        means(errors),
    )
