"""The results of a simulation as the files of its run folder.

Knows which file holds what. Their formats are known by `tables`, `timeline` and `figures`, the
arithmetic by `workbench.metrics`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.run_folder import CHARTS, IGNORED, REQUESTS, STEPS, TIMELINE, RunFolder
from experiments.tables import (
    json_safe,
    requests_frame,
    steps_frame,
    write_requests_parquet,
    write_steps_parquet,
)
from experiments.timeline import write_timeline
from workbench.metrics import SLO, RequestColumns, summarize

if TYPE_CHECKING:
    from simulator.simulation import SimulationResult


def write_outputs(
    folder: RunFolder,
    result: "SimulationResult",
    *,
    slo: SLO,
    num_kv_blocks: int | Sequence[int] | None,
    charts: bool,
    timeline: bool,
) -> dict[str, Any]:
    """Writes tables, timeline and charts; returns the summary, with every counter of the run."""
    requests = RequestColumns.from_records(result.records)
    write_requests_parquet(folder.path / REQUESTS, requests)
    write_steps_parquet(folder.path / STEPS, result.steps)
    if result.ignored:
        (folder.path / IGNORED).write_text("\n".join(result.ignored) + "\n", encoding="utf-8")
    if timeline:
        write_timeline(folder.path / TIMELINE, result.records, result.steps)
    summary: dict[str, Any] = summarize(
        requests,
        result.steps,
        slo,
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


def _write_charts(
    folder: RunFolder,
    requests: RequestColumns,
    result: "SimulationResult",
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
