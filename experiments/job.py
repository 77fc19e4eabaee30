"""One job: config in, run folder out.

Knows the order in which a run is built, timed and written, and what happens when it fails. How
results become files is known by `tables`, `timeline` and `figures`; what a run consists of by
`assemble`.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments.brief import brief
from experiments.explain import explain, is_expected
from experiments.inputs import inputs_of, with_absolute_paths
from experiments.progress import progress_bar
from experiments.provenance import Stopwatch, code_revision, peak_rss_mb, provenance
from experiments.resume import is_kept
from experiments.run_folder import (
    CONFIG,
    NOT_SERVED,
    PROVENANCE,
    SUMMARY,
    RunFolder,
    fingerprint,
    write_atomically,
    write_json,
)
from experiments.schema import run_settings
from experiments.sweep import register_resolvers
from workbench.metrics import RunStoppedError

if TYPE_CHECKING:
    from experiments.backend import Assembled, Backend
    from workbench.metrics import RunResult

register_resolvers()  # the worker processes of a launcher import this module and not `run`


def task(config: DictConfig) -> None:
    """Hydra's task function: runs one job of a single run or of a sweep into its folder.

    A single run that fails ends the program with status 1. In a sweep, a job that is already done
    is left alone and a failed one is recorded while the others go on, unless `fail_fast` is set.
    """
    hydra = HydraConfig.get()
    folder = RunFolder(Path(hydra.runtime.output_dir))
    in_sweep = hydra.mode == RunMode.MULTIRUN
    first = not in_sweep or hydra.job.num == 0
    if in_sweep and config.resume and is_kept(folder, config):
        return
    try:
        summary = run_into(folder, config, stopwatch=Stopwatch(since_process_start=first))
    except Exception as error:
        _report_failure(folder, error)
        if not in_sweep or config.fail_fast:
            sys.exit(1)
        return
    if in_sweep:
        print(f"done: {folder.path} ({summary['run_wall_s']:.2f} s)", flush=True)
    else:
        print(brief(summary))
        if unserved := sum(summary.get(key) or 0 for key in ("ignored", "error", "truncated")):
            requests = "1 request was" if unserved == 1 else f"{unserved} requests were"
            print(f"{requests} not served to the end: {folder.path / NOT_SERVED} says why")
        print(f"Everything is in {folder.path}", flush=True)


def run_into(
    folder: RunFolder, config: DictConfig, *, stopwatch: Stopwatch, config_hash: str | None = None
) -> dict[str, Any]:
    """Runs the config and writes everything into the folder, `DONE` last. Returns the summary.

    The folder's config has absolute paths; `DONE` keeps the fingerprint of the config as it was
    given, so that the same command finds its runs from another folder, or `config_hash`. On any
    error the folder keeps `error.txt` and `FAILED`, and the error passes on. When the program is
    interrupted the folder carries neither marker.
    """
    folder.start()
    try:
        given = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        plain = cast(dict[str, Any], with_absolute_paths(given))
        config = OmegaConf.create(plain)
        write_atomically(folder.path / CONFIG, OmegaConf.to_yaml(config))
        run_settings(config)
        inputs = {"inputs": inputs_of(plain)}
        summary, facts, stopped = _run_and_write(folder, config, stopwatch)
        revision = code_revision()
        origin = provenance(revision=revision, stopwatch=stopwatch, seed=config.seed)
        write_json(folder.path / PROVENANCE, origin | inputs | facts)
        write_json(folder.path / SUMMARY, summary)
        if stopped is not None:
            raise stopped
        folder.finish(config_hash or fingerprint(cast(Mapping[str, Any], given)), revision)
    except Exception as error:
        folder.fail(explain(error), error)
        raise
    return summary


def _run_and_write(
    folder: RunFolder, config: DictConfig, stopwatch: Stopwatch
) -> tuple[dict[str, Any], dict[str, Any], RunStoppedError | None]:
    """Writes the files of the run; its summary, what its provenance says of its world, and what
    stopped it before its end.
    """
    from experiments.assemble import part

    backend: Backend = part(config, "backend")
    assembly = backend.assemble(config)
    for note in assembly.notes:
        print(f"note: {note}", flush=True)
    result, stopped, costs = _run(assembly, stopwatch, show_progress=config.progress)

    from experiments.outputs import write_outputs  # after the run: loads pandas and matplotlib

    summary = write_outputs(
        folder,
        result,
        slo=assembly.slo,
        replicas=assembly.cluster.replicas,
        num_kv_blocks=assembly.num_kv_blocks,
        charts=config.charts,
        timeline=config.timeline,
    )
    if config.get("uncertainty") is not None and stopped is None:
        from experiments.uncertainty import add_intervals

        summary |= add_intervals(folder, config, assembly)
    summary |= {
        "max_model_len": assembly.scheduler.max_model_len,
        "max_num_batched_tokens": assembly.scheduler.max_num_batched_tokens,
        **costs,
        "peak_rss_mb": peak_rss_mb(),
        "run_cpu_s": stopwatch.cpu_s(),
        "run_wall_s": stopwatch.wall_s(),
        "seed": config.seed,
    }
    return summary, assembly.facts, stopped


def _run(
    assembly: "Assembled", stopwatch: Stopwatch, *, show_progress: bool
) -> tuple["RunResult", RunStoppedError | None, dict[str, float]]:
    """The run's result, what stopped it, and its costs under the names of the summary.

    `startup_cpu_s` covers everything up to the first event (in later jobs of one process, since the
    job began; a real engine's model is loaded in it); `simulation_*` reading or drawing the
    workload, building the simulation and running it. The two overlap in the workload. On a real
    engine `simulation_*` is called `serving_*`; only `simulation_cpu_s` is there under both names.
    The summary's `run_*` is the whole job, files and charts included.
    """
    building = Stopwatch()
    run = assembly.start()
    startup_cpu_s = stopwatch.cpu_s()
    stopped = None
    with progress_bar(enabled=show_progress, activity=assembly.activity) as progress:
        try:
            result = run.run(progress=progress)
        except RunStoppedError as error:
            result, stopped = error.result, error
    costs = {"cpu_s": building.cpu_s(), "wall_s": building.wall_s(), "peak_rss_mb": peak_rss_mb()}
    told = {f"{assembly.activity}_{name}": value for name, value in costs.items()}
    told["simulation_cpu_s"] = costs["cpu_s"]  # in every summary, whatever the world
    return result, stopped, told | {"startup_cpu_s": startup_cpu_s}


def _report_failure(folder: RunFolder, error: Exception) -> None:
    kind = "error" if is_expected(error) else "error in the program"
    print(f"{kind}: {explain(error)} [{folder.path}/error.txt]", file=sys.stderr, flush=True)
    if isinstance(error, RunStoppedError):
        requests, seconds = len(error.result.records), error.result.duration_s
        note = f"the run was stopped at {seconds:g} s; {requests} requests had come by then"
        print(f"{note}, and what was served of them is in {folder.path}", file=sys.stderr)
