"""The page of one run: its numbers, its charts, its config, and where it comes from.

Knows the files of a run folder and the keys of `summary.json`. Computes no metric. A run that
failed gets a page that says why.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.report import sources
from experiments.report.captions import chart
from experiments.report.metrics import headlines, interval_table, latency_table, metric_table
from experiments.report.page import Section, Table, write_page
from experiments.run_folder import CHARTS, CONFIG, ERROR, NOT_SERVED, REQUESTS, STEPS, RunFolder
from workbench.errors import WorkbenchError

MAX_NOT_SERVED = 20
GROUPS = (
    "model", "hardware", "parallel", "cluster", "cost_model", "backend", "workload", "router",
    "queue", "batch_policy", "victim", "eviction", "scheduler", "cache", "slo", "uncertainty",
)  # fmt: skip


def write_run_page(folder: Path, out: Path) -> None:
    """Writes the page of the run in `folder`. Raises WorkbenchError if the run has not ended."""
    run = RunFolder(folder)
    provenance = sources.read_provenance(folder)
    commands = [sources.command_line(provenance.get("argv") or [])]
    facts = sources.facts(provenance)
    title = f"Run: {folder.resolve().name}"
    if run.marker() is None:
        if run.failure() is None:
            raise WorkbenchError(
                f"{folder}: the run has neither DONE nor FAILED: it is still running or was "
                "killed; run it to its end first"
            )
        write_page(out, f"{title} (failed)", _failed(run), commands if facts else (), facts)
        return
    summary = run.summary()
    sure = [table for table in [interval_table(summary)] if table is not None]
    with charts_of(run, summary) as charts:
        figures = [chart(path, summary) for path in charts]
        sections = [
            Section("Latency", tables=[latency_table(summary), *sure]),
            Section("Throughput, cache and batch", tables=[metric_table(summary)]),
            *_not_served(folder),
            *([Section("Charts", charts=figures)] if figures else []),
            *config_sections(folder),
        ]
        write_page(
            out,
            title,
            sections,
            [*filter(None, commands), *([] if is_load_test(folder) else [_rerun(folder)])],
            facts,
            headlines=headlines(summary),
            summary=describe(folder),
        )


@contextmanager
def charts_of(run: RunFolder, summary: Mapping[str, Any]) -> Iterator[list[Path]]:
    """The charts of a run; drawn for the moment where it has none."""
    drawn = sorted((run.path / CHARTS).glob("*.png"))
    if drawn or not (run.path / REQUESTS).is_file() or not (run.path / STEPS).is_file():
        yield drawn
        return
    from experiments.figures import save_run_charts
    from experiments.rerun import saved_config
    from experiments.schema import settings
    from experiments.tables import read_requests_frame, read_steps_frame

    with tempfile.TemporaryDirectory() as place:
        yield save_run_charts(
            Path(place),
            read_requests_frame(run.path / REQUESTS),
            read_steps_frame(run.path / STEPS),
            slo=settings(saved_config(run.path), "slo"),
            num_kv_blocks=summary.get("num_kv_blocks"),
        )


def _failed(run: RunFolder) -> list[Section]:
    trace = run.path / ERROR
    return [
        Section(
            "What went wrong",
            run.failure() or "",
            code=trace.read_text(encoding="utf-8") if trace.is_file() else "",
        ),
        *config_sections(run.path),
    ]


def _not_served(folder: Path) -> list[Section]:
    path = folder / NOT_SERVED
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.partition(": ")[::2] for line in lines[:MAX_NOT_SERVED]]
    more = f" The first {MAX_NOT_SERVED} are shown." if len(lines) > MAX_NOT_SERVED else ""
    text = f"{len(lines)} requests ended without an answer; their latencies are in no table.{more}"
    return [
        Section("Requests not served", text, [Table("Why", ["request", "reason"], rows)]),
    ]


def is_load_test(folder: Path) -> bool:
    """Whether the folder is that of `workbench bench serve`: no run that could be repeated."""
    return isinstance(_config(folder).get("bench"), dict)


def _rerun(folder: Path) -> str:
    return f"workbench rerun {folder} --out NEW"


def describe(folder: Path) -> str:
    """A sentence on what was run, from the saved config; empty if there is none."""
    config = _config(folder)
    if not config:
        return ""
    if is_load_test(folder):
        server = config["bench"].get("server")
        return (
            f"A load test of {server}, as its client saw it; workload {_name(config, 'workload')}."
        )
    model, hardware = _name(config, "model"), _name(config, "hardware")
    parallel, cluster = config.get("parallel") or {}, config.get("cluster") or {}
    replicas = int(cluster.get("replicas") or 1)
    gpus = 1
    for degree in ("tensor_parallel_size", "pipeline_parallel_size"):
        gpus *= int(parallel.get(degree) or 1)
    each = f"{gpus} x {hardware}" if gpus > 1 else hardware
    servers = "one replica" if replicas == 1 else f"{replicas} replicas"
    world = _name(config, "backend").removesuffix("Backend").lower()
    machine = _calibrated_on(config)
    times = f"; step times measured on {machine}" if machine else ""
    workload = _name(config, "workload")
    return f"{model} on {servers} of {each}{times}; workload {workload}; {world}."


def _calibrated_on(config: Mapping[str, Any]) -> str:
    """The machine that the cost model's calibration was measured on; empty if it is not known."""
    try:
        file = Path(str((config.get("cost_model") or {})["path"]))
        facts = json.loads(file.read_text(encoding="utf-8"))["facts"]
        return str(facts.get("device_name") or facts.get("cpu") or "")
    except (OSError, ValueError, KeyError, TypeError):  # no calibration, or it is gone
        return ""


def config_sections(folder: Path) -> list[Section]:
    """What was chosen in each group, and the whole config behind it."""
    config = _config(folder)
    if not config:
        return []
    rows = [[group, _name(config, group), _settings(config[group])] for group in GROUPS
            if isinstance(config.get(group), dict)]  # fmt: skip
    table = Table("What was chosen", ["group", "choice", "settings"], rows)
    code = (folder / CONFIG).read_text(encoding="utf-8")
    return [Section("Config", tables=[table], code=code)]


def _config(folder: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    path = folder / CONFIG
    if not path.is_file():
        return {}
    content = OmegaConf.to_container(OmegaConf.load(path))
    return {str(k): v for k, v in content.items()} if isinstance(content, dict) else {}


def _name(config: Mapping[str, Any], group: str) -> str:
    """What a group is called: its name, else the class behind it, else the group."""
    node = config.get(group) or {}
    return str(node.get("name") or str(node.get("_target_", group)).rpartition(".")[2])


def _settings(node: Mapping[str, Any]) -> str:
    """The plain settings of a node in one line; what is null or long is left to the config."""
    plain = {
        key: value
        for key, value in node.items()
        if not key.startswith("_") and key not in ("name", "source")
        and isinstance(value, bool | int | float | str)
    }  # fmt: skip
    return ", ".join(f"{key}={value}" for key, value in plain.items())
