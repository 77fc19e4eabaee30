"""The results of a simulation as the files of its run folder.

Knows which file holds what. Their formats are known by `tables`, `timeline` and `figures`, the
arithmetic by `workbench.metrics`.
"""

from collections.abc import Sequence
from typing import Any

from experiments.run_folder import (
    CHARTS,
    NOT_SERVED,
    RECORDING,
    REQUESTS,
    STEPS,
    TIMELINE,
    RunFolder,
)
from experiments.tables import (
    json_safe,
    requests_frame,
    steps_frame,
    write_requests_parquet,
    write_steps_parquet,
)
from experiments.timeline import write_timeline
from workbench.metrics import SLO, RequestColumns, RunResult, summarize


def write_outputs(
    folder: RunFolder,
    result: RunResult,
    *,
    slo: SLO,
    replicas: int,
    num_kv_blocks: int | Sequence[int] | None,
    charts: bool,
    timeline: bool,
) -> dict[str, Any]:
    """Writes tables, timeline and charts; returns the summary, with every counter of the run."""
    requests = RequestColumns.from_records(result.records)
    write_requests_parquet(folder.path / REQUESTS, requests)
    write_steps_parquet(folder.path / STEPS, result.steps)
    if lines := not_served(requests):
        (folder.path / NOT_SERVED).write_text("\n".join(lines) + "\n", encoding="utf-8")
    if result.recording is not None:
        (folder.path / RECORDING).write_bytes(result.recording)
    if timeline:
        write_timeline(folder.path / TIMELINE, result.records, result.steps)
    summary: dict[str, Any] = summarize(
        requests,
        result.steps,
        slo,
        replicas=replicas,
        num_kv_blocks=num_kv_blocks,
        counters=result.counters,
    )
    for name, value in result.counters.items():
        summary.setdefault(name, value)
    summary["num_kv_blocks"] = num_kv_blocks
    if charts:
        _write_charts(folder, requests, result, slo, num_kv_blocks)
    safe: dict[str, Any] = json_safe(summary)
    return safe


def not_served(requests: RequestColumns) -> list[str]:
    """A line for each request that did not get all it wanted, and why."""
    return [
        f"{name} ({reason}): {detail}"
        for name, reason, detail in zip(
            requests.request_id, requests.finish_reason, requests.finish_detail, strict=True
        )
        if detail is not None
    ]


def _write_charts(
    folder: RunFolder,
    requests: RequestColumns,
    result: RunResult,
    slo: SLO,
    num_kv_blocks: int | Sequence[int] | None,
) -> None:
    from experiments.figures import save_run_charts

    save_run_charts(
        folder.path / CHARTS,
        requests_frame(requests),
        steps_frame(result.steps),
        slo=slo,
        num_kv_blocks=num_kv_blocks,
    )
