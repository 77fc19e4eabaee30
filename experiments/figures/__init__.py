"""Charts: a figure is a function, table in, matplotlib ``Figure`` out.

``run_figures`` names the charts of one run; ``comparison`` has those of several runs.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments.figures.gantt import MAX_BARS, request_gantt
from experiments.figures.latency import itl_distribution, latency_cdf, latency_over_time
from experiments.figures.load import (
    batch_composition,
    kv_usage_over_time,
    queue_over_time,
    throughput_over_time,
)
from experiments.figures.style import save
from workbench.metrics import SLO

__all__ = [
    "batch_composition",
    "itl_distribution",
    "kv_usage_over_time",
    "latency_cdf",
    "latency_over_time",
    "queue_over_time",
    "request_gantt",
    "run_figures",
    "save",
    "save_run_charts",
    "throughput_over_time",
]


def run_figures(
    requests: pd.DataFrame,
    steps: pd.DataFrame,
    *,
    slo: SLO | None = None,
    num_kv_blocks: int | Sequence[int] | None = None,
) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of the charts of one run, one at a time so that only one is in memory.

    Frames as made by ``experiments.tables``. The chart of single requests is for small runs only.
    """
    yield "latency_cdf", latency_cdf(requests, slo)
    yield "latency_over_time", latency_over_time(requests, slo)
    yield "itl_distribution", itl_distribution(requests)
    yield "throughput_over_time", throughput_over_time(requests, steps)
    if len(steps) or not len(requests):  # a client of a server has seen none
        yield "queue_over_time", queue_over_time(steps)
        yield "kv_usage_over_time", kv_usage_over_time(steps, num_kv_blocks)
        yield "batch_composition", batch_composition(steps)
    if len(requests) <= 4 * MAX_BARS:
        yield "request_gantt", request_gantt(requests)


def save_run_charts(
    folder: Path,
    requests: pd.DataFrame,
    steps: pd.DataFrame,
    *,
    slo: SLO | None = None,
    num_kv_blocks: int | Sequence[int] | None = None,
) -> list[Path]:
    """Write the charts of one run as ``folder/NAME.png``; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in run_figures(requests, steps, slo=slo, num_kv_blocks=num_kv_blocks):
        paths.append(folder / f"{name}.png")
        save(figure, paths[-1])
    return paths
