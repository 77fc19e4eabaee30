"""A load test's files: a run folder like that of `workbench run`, and vLLM's result file.

Knows which file holds what. `workbench plot`, `compare` and `report` read the folder; it has no
steps, for a client sees none.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.bench.results import BenchResult
from experiments.provenance import Stopwatch, code_revision, peak_rss_mb, provenance
from experiments.run_folder import (
    CHARTS,
    CONFIG,
    NOT_SERVED,
    PROVENANCE,
    REQUESTS,
    STEPS,
    SUMMARY,
    RunFolder,
    fingerprint,
    write_atomically,
    write_json,
)
from workbench.metrics import SLO, RequestColumns, StepLog

VLLM_FILE = "bench.json"
OVERRIDES = ".hydra/overrides.yaml"
SECRET_FLAGS = ("--api-key", "--header")


def write_run(
    folder: RunFolder,
    result: BenchResult,
    *,
    slo: SLO,
    config: Mapping[str, Any],
    told: Mapping[str, Any],
    facts: Mapping[str, Any],
    stopwatch: Stopwatch,
    charts: bool,
) -> dict[str, Any]:
    """Write everything, `DONE` last; the summary.

    Args:
        config: What was asked for, as plain values.
        told: The content of vLLM's result file.
        facts: What the provenance says beside machine and versions.
    """
    from experiments.tables import json_safe

    path = folder.path
    write_atomically(path / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))
    write_overrides(path, config["bench"])
    _write_tables(path, result.columns, result.sent_s)
    write_json(path / VLLM_FILE, json_safe(told))
    if charts:
        _write_charts(path, result, slo)
    summary: dict[str, Any] = json_safe(
        result.summary(slo)
        | {
            "peak_rss_mb": peak_rss_mb(),
            "client_cpu_s": facts["client_cpu_s"],
            "run_cpu_s": stopwatch.cpu_s(),
            "run_wall_s": stopwatch.wall_s(),
            "seed": config["seed"],
        }
    )
    write_json(path / SUMMARY, summary)
    revision = code_revision()
    origin = provenance(revision=revision, stopwatch=stopwatch, seed=config["seed"])
    origin |= {"argv": command_without_keys(sys.argv), "inputs": []}
    write_json(path / PROVENANCE, origin | json_safe(facts))
    folder.finish(fingerprint(config), revision)
    return summary


def _write_tables(path: Path, requests: RequestColumns, sent_s: Any) -> None:
    from experiments.outputs import not_served
    from experiments.tables import write_requests_parquet, write_steps_parquet

    write_requests_parquet(path / REQUESTS, requests, sent_s=sent_s)
    write_steps_parquet(path / STEPS, StepLog())
    if lines := not_served(requests):
        write_atomically(path / NOT_SERVED, "\n".join(lines) + "\n")


def write_overrides(path: Path, flags: Mapping[str, Any]) -> None:
    """The flags in the place where `workbench compare` looks for what sets runs apart."""
    # a comparison has a column "label" of its own
    named = {"name" if name == "label" else name: value for name, value in flags.items()}
    words = [f"{name}={value}" for name, value in named.items() if _is_plain(value)]
    file = path / OVERRIDES
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, yaml.safe_dump(words))


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _write_charts(path: Path, result: BenchResult, slo: SLO) -> None:
    from experiments.figures import save_run_charts
    from experiments.tables import requests_frame, steps_frame

    frames = requests_frame(result.columns), steps_frame(StepLog())
    save_run_charts(path / CHARTS, *frames, slo=slo)


def write_vllm_file(folder: str | None, name: str | None, told: Mapping[str, Any]) -> Path:
    """vLLM's result file, under the name that vLLM would give it; the path."""
    from experiments.tables import json_safe

    if name is None:
        model = str(told["model_id"]).rpartition("/")[2]
        rate, most = told["request_rate"], told["max_concurrency"]
        concurrency = "" if most is None else f"-concurrency{most}"
        label = told["label"] or told["backend"]
        name = f"{label}-{rate}qps{concurrency}-{model}-{told['date']}.json"
    path = Path(folder or ".") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(json_safe(told), allow_nan=False) + "\n")
    return path


def command_without_keys(words: Sequence[str]) -> list[str]:
    """A command line with its keys and headers hidden."""
    told = []
    hides = False
    for word in words:
        if not word.startswith("-"):
            told.append("***" if hides else word)
            continue
        flag, sign, _ = word.partition("=")
        is_secret = flag in SECRET_FLAGS
        told.append(f"{flag}=***" if is_secret and sign else word)
        hides = is_secret and not sign
    return told
