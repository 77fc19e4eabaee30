r"""The same workload on the engine and in the calibrated simulator, and how far they are apart.

    python -m experiments.validate experiment=demo_engine model.path=FOLDER workload=validation \
        hydra.run.dir=OUT [validate.loads=[0.2,0.6,0.9,1.5]] [validate.policies=[…]] …

Measures the engine's capacity, the median of a few bursts, then runs each load under each policy on
the engine, and each in the simulator: as the calibration says, and at the speed that the machine
had in the run, each time with several draws of the steps' noise, whose mean counts; and again and
again with all of the calibration's errors drawn, for the bands. The calibration's rounds are
measured before, between and after the engine's runs, so that what the machine does meanwhile falls
on both alike; `validate.calibration=FILE` names one that is there. OUT/validation.json holds every
number, OUT/report.html shows them. What has been run is kept: the same command goes on.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from experiments.calibrate import FILE, calibrate, num_cpus
from experiments.calibration_session import CalibrateSettings
from experiments.own_settings import part_command_line
from experiments.prediction_interval import reached_level
from experiments.program import run_program
from experiments.provenance import Stopwatch, provenance
from experiments.run_folder import write_json
from experiments.steady_cpus import SteadyCpus
from experiments.tables import json_safe
from experiments.uncertainty import drawn_runs, summaries
from experiments.validation import runs
from experiments.validation.compare import (
    AT_ITS_SPEED,
    ENGINE,
    SIMULATOR,
    case_result,
    coverage,
    errors_of_means,
    rankings,
    verdicts,
)
from experiments.validation.plan import Case, Plan
from experiments.validation.settings import ValidateSettings
from simulator.calibration import Calibration
from simulator.calibration.jitter import FEWEST_RUNS
from workbench.errors import ConfigError

RESULT, CAPACITY, CALIBRATION = "validation.json", "capacity", "calibration"
ON_INTERRUPT = "interrupted: the same command goes on where it was"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    return run_program(arguments, __doc__, _validate, on_interrupt=ON_INTERRUPT)


def _validate(argv: list[str]) -> int:
    settings, folder, overrides = part_command_line(argv, "validate", ValidateSettings)
    validate(overrides, folder, settings, argv)
    print(f"Everything is in {folder}")
    return 0


def validate(
    overrides: Sequence[str], folder: Path, settings: ValidateSettings, argv: Sequence[str] = ()
) -> dict[str, Any]:
    """Run what is still missing in the folder, compare, and write the report."""
    from experiments.validation.report import print_result, write_report

    plan = Plan(overrides, settings)
    (folder / RESULT).unlink(missing_ok=True)
    file, capacity = _measure(plan, folder, settings)
    cases = [
        _case(plan, folder, number, case, settings, file, capacity)
        for number, case in enumerate(plan.cases())
    ]
    origin = provenance(revision=None, stopwatch=Stopwatch(), seed=plan.seed)
    result: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "experiments.validate", *argv]),
        "machine": {name: origin[name] for name in ("cpu", "cpus_usable", "platform", "packages")},
        "date": origin["started_at"],
        "calibration": dict(Calibration.load(file).facts),
        "capacity_requests_per_s": capacity,
        "goals": verdicts(cases),
        "errors_of_means": errors_of_means(cases),
        "errors_of_means_at_its_speed": errors_of_means(cases, AT_ITS_SPEED),
        "rankings": rankings(cases),
        "rankings_at_its_speed": rankings(cases, AT_ITS_SPEED),
        "coverage": coverage(cases) | {"level": reached_level(settings.level, settings.runs)},
        "cases": cases,
    }
    write_report(folder, result, Calibration.load(file))
    write_json(folder / RESULT, json_safe(result))
    print_result(result)
    return result


def _measure(plan: Plan, folder: Path, settings: ValidateSettings) -> tuple[Path, float]:
    """All that needs the engine: its calibration, its capacity in requests a second, its runs."""
    number = num_cpus(plan.capacity_runs()[0]) if settings.steady else 0
    with SteadyCpus(number) as cpus:
        return _measure_on(cpus, plan, folder, settings)


def _measure_on(
    cpus: SteadyCpus, plan: Plan, folder: Path, settings: ValidateSettings
) -> tuple[Path, float]:
    from tqdm import tqdm

    cases, rounds = list(plan.cases()), settings.rounds
    file = _calibration(plan, folder, settings, 1, cpus)
    runs.check_same_engine(plan.calibration_config(), Calibration.load(file), file)
    capacity = _capacity(plan, folder, settings, cpus)
    with tqdm(total=len(cases), disable=None, desc="runs on the engine") as bar:
        for number in range(1, rounds):
            first, end = (len(cases) * n // (rounds - 1) for n in (number - 1, number))
            for case in cases[first:end]:
                config = plan.on_engine(case, capacity)
                runs.run_on_engine(folder / "runs" / case.name, config, settings, cpus)
                bar.update()
            _calibration(plan, folder, settings, number + 1, cpus)
    return file, capacity


def _calibration(
    plan: Plan, folder: Path, settings: ValidateSettings, rounds: int, cpus: SteadyCpus
) -> Path:
    """The calibration to use, of at least so many rounds; measured here where none is named."""
    if settings.calibration is not None:
        check_has_bands(Calibration.load(Path(settings.calibration)), settings.calibration)
        return Path(settings.calibration)
    file = folder / CALIBRATION / FILE
    if not file.exists() or Calibration.load(file).facts.get("rounds", 0) < rounds:
        own = CalibrateSettings(
            disturbed=settings.disturbed,
            steady=settings.steady,
            slowed=settings.slowed,
            patience_s=settings.patience_s,
            rounds=rounds,
            budgets=plan.budgets(),
        )
        calibrate(plan.calibration_config(), folder / CALIBRATION, own, cpus=cpus)
    return file


def check_has_bands(calibration: Calibration, file: str) -> None:
    """Refuse a calibration that does not know how far a whole run is off, before any run.

    Raises:
        ConfigError: It has fewer than two recordings.
    """
    if calibration.jitter.known_run_sd is None:
        raise ConfigError(
            f"validate.calibration={file} has fewer than {FEWEST_RUNS} recordings, so it does not"
            " know how far a whole run is off, and there would be no bands: calibrate with"
            f" calibrate.rounds={FEWEST_RUNS} or more"
        )


def _capacity(plan: Plan, folder: Path, settings: ValidateSettings, cpus: SteadyCpus) -> float:
    """Requests a second of the first policy with requests enough: the median of a few bursts.

    One alone lasts seconds, and a machine may be half as fast for so long: loads that are parts of
    such a capacity are lower than they are called.
    """
    bursts = [
        runs.run_on_engine(folder / CAPACITY / str(number), config, settings, cpus)
        for number, config in enumerate(plan.capacity_runs())
    ]
    return median(burst.summary["finished"] / burst.summary["duration_s"] for burst in bursts)


def _case(
    plan: Plan,
    folder: Path,
    number: int,
    case: Case,
    settings: ValidateSettings,
    file: Path,
    capacity: float,
) -> dict[str, Any]:
    """One run, simulated and compared; its number says with which draws of noise."""
    from experiments.assemble import Assembly

    place = folder / "runs" / case.name
    engine, seen = runs.World(place / ENGINE), runs.watched(place)
    blocks = int(engine.summary["num_kv_blocks"])
    measured = engine.requests()
    draws = range(number * settings.draws, (number + 1) * settings.draws)
    configs = [plan.simulated(case, capacity, blocks, file, noise=draw) for draw in draws]
    simulated = runs.predict(place, SIMULATOR, configs, measured)
    of_decodes = runs.pace(engine.steps(), simulated.steps)
    span = engine.summary["duration_s"] + runs.WRITING_S
    pace = Calibration.load(file).pace
    paces = pace.each_second(seen.get("paces", ()), span)
    speed = {"pace": paces} if paces else {"slowdown": [of_decodes]}
    configs = [plan.simulated(case, capacity, blocks, file, speed, draw) for draw in draws]
    corrected = runs.predict(place, AT_ITS_SPEED, configs, measured)
    assembly = Assembly.from_config(plan.simulated(case, capacity, blocks, file))
    # each case with errors of its own: of one set that were all large, no case would be outside
    drawn = summaries(assembly, drawn_runs(assembly, settings.runs, plan.seed + number))
    identity = {
        "load": case.load,
        "policy": case.policy,
        "repeat": case.repeat,
        "folder": case.name,
        "slowdown": fmean(pace.slowdown(p, has_prompts=False) for p in paces)
        if paces
        else of_decodes,
        "slowdown_told_by": "probe" if paces else "decode steps",
        "slowdown_of_decodes": of_decodes,
        "cpus_used_by_others": seen["others"],
        "slowed": seen["slowed"],
        "tries": seen["tries"],
    }
    return case_result(identity, engine, simulated, corrected, drawn, settings.level)


if __name__ == "__main__":
    sys.exit(main())
