r"""Measures what an engine's steps cost, and leaves a file that `cost_model=calibrated` reads.

    python -m experiments.calibrate backend=engine model=hf_config model.path=FOLDER \
        hydra.run.dir=OUT [calibrate.rounds=4] [calibrate.serve_s=8] [settings of a run]

In rounds, so that what the machine does meanwhile falls on everything alike: a pass over a grid of
steps that the model runner is given without a scheduler, then a recording of the engine serving
designed bursts. The fit knows the grid's coverage and the recordings' truth: scheduler, inputs,
outputs and all. A calibration that was stopped goes on where it was.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from experiments.backend import EngineBackend
from experiments.calibration_session import CalibrateSettings, CalibrationSession
from experiments.inside.fixed_work import VERSION
from experiments.own_settings import part_command_line
from experiments.program import run_program
from experiments.steady_cpus import SteadyCpus
from simulator.calibration import Calibration, fit
from workbench.errors import ConfigError

if TYPE_CHECKING:
    from experiments.assemble_engine import EngineAssembly

FILE = "calibration.json"
CONFIG = "calibrated_config.yaml"
ON_INTERRUPT = "interrupted: the same command goes on where it was"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    return run_program(arguments, __doc__, _calibrate, on_interrupt=ON_INTERRUPT)


def _calibrate(argv: list[str]) -> int:
    from experiments.run import compose_config

    settings, folder, overrides = part_command_line(argv, "calibrate", CalibrateSettings)
    calibrate(compose_config(overrides), folder, settings, argv)
    print(f"Everything is in {folder}")
    return 0


def calibrate(
    config: DictConfig,
    folder: Path,
    settings: CalibrateSettings | None = None,
    argv: Sequence[str] = (),
    cpus: SteadyCpus | None = None,
) -> Calibration:
    """Measure what is still missing in the folder, fit, and write the calibration.

    Args:
        config: Of the engine.
        folder: Of the measurements.
        settings: How much is measured.
        argv: The command line, for the record.
        cpus: The engine's CPUs, watched already; None: they are watched here.

    Raises:
        ConfigError: The config is not one of the engine, or the folder holds another calibration.
    """
    settings = settings or CalibrateSettings()
    if cpus is None:
        with SteadyCpus(num_cpus(config) if settings.steady else 0) as cpus:
            return calibrate(config, folder, settings, argv, cpus)
    assembly = _assemble(config)
    session = CalibrationSession(assembly, folder, settings, cpus)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, config)
    started = time.perf_counter() - _seconds_before(folder / FILE)
    facts = _facts(config, assembly, settings, argv)
    calibration = fit(session.measure(), facts)
    took = {"seconds": round(time.perf_counter() - started, 1)}
    calibration = fit(session.steps(), facts | session.facts() | took)
    calibration.save(folder / FILE)
    from experiments.calibration_report import write_calibration_report

    write_calibration_report(folder, calibration, session.steps(), argv)
    return calibration


def num_cpus(config: DictConfig) -> int:
    """CPUs that the engine computes on; 0 where it computes on a GPU, or is none."""
    from experiments.assemble import part

    backend = part(config, "backend")
    if not isinstance(backend, EngineBackend):
        return 0
    from engine.engine_facts import num_cpu_threads

    return num_cpu_threads(backend.device)


def _seconds_before(file: Path) -> float:
    """What earlier rounds of the same calibration took."""
    return float(Calibration.load(file).facts.get("seconds", 0.0)) if file.exists() else 0.0


def _assemble(config: DictConfig) -> "EngineAssembly":
    from experiments.assemble import part
    from experiments.assemble_engine import EngineAssembly
    from experiments.schema import run_settings

    run_settings(config)
    backend = part(config, "backend")
    if not isinstance(backend, EngineBackend):
        raise ConfigError("backend=simulator has no steps to measure: calibrate backend=engine")
    return EngineAssembly.from_config(config, backend)


def _claim(folder: Path, config: DictConfig) -> None:
    """Make the folder this config's, or refuse it."""
    kept = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    assert isinstance(kept, dict)
    text = OmegaConf.to_yaml(OmegaConf.create({g: kept[g] for g in ENGINE_GROUPS}))
    text = f"# paces are those of fixed work {VERSION}\n{text}"
    file = folder / CONFIG
    if not file.exists():
        file.write_text(text, encoding="utf-8")
    elif file.read_text(encoding="utf-8") != text:
        raise ConfigError(
            f"{folder} holds measurements of another engine ({CONFIG}), or by an older version of"
            " this program: name a new folder, hydra.run.dir=FOLDER"
        )


# what makes an engine; a workload may differ
ENGINE_GROUPS = ("backend", "model", "scheduler", "cache", "batch_policy")


def _facts(
    config: DictConfig, assembly: "EngineAssembly", settings: CalibrateSettings, argv: Sequence[str]
) -> dict[str, Any]:
    """What was measured, where, when and with what."""
    from experiments.assemble import part
    from experiments.provenance import Stopwatch, provenance
    from simulator.cost_models.calibrated import SIZES

    model = part(config, "model")
    origin = provenance(revision=None, stopwatch=Stopwatch(), seed=None)
    engine = assembly.facts["engine"]
    scheduler = assembly.scheduler
    return {
        "command": shlex.join(["python", "-m", "experiments.calibrate", *argv]),
        "date": origin["started_at"],
        "model": {"name": model.name} | {name: getattr(model, name) for name in SIZES},
        **{name: engine[name] for name in ENGINE_FACTS},
        "cpu": origin["cpu"],
        "cpus_usable": origin["cpus_usable"],
        "packages": origin["packages"],
        "async_scheduling": scheduler.async_scheduling,
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "max_model_len": scheduler.max_model_len,
        "block_size": assembly.parts.cache_config.block_size,
        "num_kv_blocks": assembly.num_kv_blocks,
    }


ENGINE_FACTS = ("device", "device_name", "dtype", "torch_threads", "attention_backend", "executor")


if __name__ == "__main__":
    sys.exit(main())
