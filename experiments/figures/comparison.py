"""Charts that set several runs side by side.

Knows a frame with one row a run: the column ``label`` names the run, the others are the keys of
``summary.json`` and, for curves, the swept parameter. Runs are drawn in the order of the rows,
and a label keeps its colour in all charts of the same frame.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures import legend, sampling, style
from experiments.figures.latency import SHORT_NAMES, values_of

BAR_METRICS = {
    "output_tokens_per_s": ("output tokens", "tokens/s", 1.0),
    "requests_per_s": ("finished requests", "requests/s", 1.0),
    "goodput_requests_per_s": ("goodput (SLO met)", "requests/s", 1.0),
    "prefix_hit_rate": ("prefix cache hits", "%", 100.0),
    "preemptions": ("preemptions", "count", 1.0),
    "batch_size_mean": ("running, mean", "requests", 1.0),
    "kv_usage_mean": ("KV cache use, mean", "%", 100.0),
}
POINTS = (("p50", "o"), ("p90", "D"), ("p99", "s"))


def _numbers(runs: pd.DataFrame, name: str) -> np.ndarray:
    """Column as float64, shape (runs,); NaN where it is missing or not a number."""
    if name not in runs:
        return np.full(len(runs), np.nan)
    return pd.to_numeric(runs[name], errors="coerce").to_numpy(dtype=np.float64)


def _row_panels(
    title: str, labels: Sequence[str], cols: int, note: str = "", row: float = 0.26
) -> tuple[Figure, np.ndarray]:
    """Panels side by side that share one row a run; room for the labels on the left is measured."""
    texts = [style.wrapped(label) for label in labels]
    left = max(legend.text_inches(texts, 8) + 0.2, 0.6)
    step = row + 0.13 * max((t.count("\n") for t in texts), default=0)
    height = 1.36 + step * max(len(labels), 1) + (0.16 if note else 0.0)
    width = max(style.WIDTH, left + 0.18 + cols * 1.85 + 0.28 * (cols - 1))
    figure, axes = style.panels(
        title, 1, cols, note=note, height=height, width=width, left=left, wspace=0.28, sharey=True
    )
    rows = np.arange(len(labels))
    axes[0, 0].set_yticks(rows, texts)
    axes[0, 0].set_ylabel("" if texts else "run")
    axes[0, 0].set_ylim(max(len(labels), 1) - 0.45, -0.55)
    for ax in axes.flat:
        ax.grid(visible=False, axis="y")
        ax.tick_params(axis="y", length=0, pad=4)
    return figure, axes


@style.styled
def metric_bars(
    runs: pd.DataFrame,
    metrics: Sequence[str] = ("output_tokens_per_s", "requests_per_s", "goodput_requests_per_s"),
    title: str = "Throughput",
) -> Figure:
    """Horizontal bars with their values, one panel a metric that any run has."""
    known = [m for m in metrics if not np.isnan(_numbers(runs, m)).all()] or list(metrics[:1])
    labels = [str(x) for x in runs["label"]]
    figure, axes = _row_panels(title, labels, len(known))
    colours = style.row_colours(labels)
    for ax, metric in zip(axes.flat, known, strict=True):
        name, unit, factor = BAR_METRICS.get(metric, (metric, "", 1.0))
        ax.set_title(name)
        ax.set_xlabel(unit or "value")
        values = _numbers(runs, metric) * factor
        if len(values) == 0 or np.isnan(values).all():
            style.no_data(ax)
            continue
        ax.barh(np.arange(len(values)), np.nan_to_num(values), 0.62, color=colours)
        top = float(np.nanmax(values))
        ax.set_xlim(0, top * 1.24 if top > 0 else 1)
        for row, value in enumerate(values):
            text = "none" if np.isnan(value) else style.compact(value)
            _after(ax, 0 if np.isnan(value) else value, row, text)
        style.tidy_x(ax, 4)
        if unit == "count":
            style.whole_ticks(ax.xaxis)
    return figure


def _after(ax: Axes, x: float, y: float, text: str) -> None:
    ax.annotate(
        text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", size=8
    )  # fmt: skip


@style.styled
def latency_percentiles(
    runs: pd.DataFrame, latencies: Sequence[str] = ("ttft_s", "tpot_s", "e2e_s")
) -> Figure:
    """p50, p90 and p99 of each run as points on a line, one panel a latency."""
    labels = [str(x) for x in runs["label"]]
    figure, axes = _row_panels("Latency", labels, len(latencies), row=0.3)
    colours = style.row_colours(labels)
    for ax, name in zip(axes.flat, latencies, strict=True):
        ax.set_title(SHORT_NAMES[name])
        _percentile_rows(ax, runs, name, colours)
    handles = [
        Line2D([], [], ls="", marker=m, color=style.INK, ms=4.5, mfc=_face(p, style.INK))
        for p, m in POINTS
    ]
    legend.legend_above(figure, handles, [p for p, _ in POINTS])
    return figure


def _face(point: str, colour: str) -> str:
    return "white" if point == "p90" else colour


def _percentile_rows(ax: Axes, runs: pd.DataFrame, name: str, colours: Sequence[str]) -> None:
    table = np.column_stack([_numbers(runs, f"{name}_{p}") for p, _ in POINTS])
    known = table[~np.isnan(table)]
    factor, unit = style.latency_unit(float(np.median(known)) if len(known) else 1.0)
    ax.set_xlabel(unit)
    if len(known) == 0:
        style.no_data(ax)
        return
    table = table * factor
    for row, (values, colour) in enumerate(zip(table, colours, strict=True)):
        ax.plot(values, [row] * len(POINTS), color=colour, lw=1.4, alpha=0.45)
        for value, (point, marker) in zip(values, POINTS, strict=True):
            ax.plot(value, row, marker, color=colour, ms=5, mfc=_face(point, colour), mew=1.2)
    low, high = float(np.nanmin(table)), float(np.nanmax(table))
    if low > 0 and high > 20 * low:
        style.log_axis(ax, "x", low * 0.7, high * 1.4)
    else:
        ax.set_xlim(0, high * 1.08 if high > 0 else 1)
        style.tidy_x(ax, 4)


@style.styled
def cdf_overlay(
    requests: Mapping[str, pd.DataFrame],
    latencies: Sequence[str] = ("ttft_s", "tpot_s", "itl_s", "e2e_s"),
    labels: Sequence[str] | None = None,
) -> Figure:
    """Cumulative distributions of several runs (label to requests frame), one panel a latency.

    ``labels``: all labels of the comparison, so that colours agree with its other charts.
    """
    rows = (len(latencies) + 1) // 2
    figure, axes = style.panels(
        "Latency distributions", rows, 2, height=0.65 + 2.05 * rows, hspace=0.78
    )
    names = list(requests)
    palette = list(labels) if labels is not None else names
    colours = dict(zip(palette, style.series_colours(palette), strict=True))
    for ax, name in zip(axes.flat, latencies, strict=False):
        ax.set_title(SHORT_NAMES[name])
        _overlay_panel(ax, {k: values_of(v, name) for k, v in requests.items()}, colours)
    for ax in axes.flat[len(latencies) :]:
        ax.set_axis_off()
    lines = [Line2D([], [], color=colours[n], lw=2) for n in names]
    legend.series_legend(figure, lines, names)
    return figure


def _overlay_panel(ax: Axes, values: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> None:
    ax.set_ylabel("share (%)")
    some = [np.append(v[:: max(len(v) // 2000, 1)], v.max()) for v in values.values() if len(v)]
    all_values = np.concatenate(some) if some else np.empty(0)
    factor, unit = style.latency_unit(float(np.median(all_values)) if len(all_values) else 1.0)
    ax.set_xlabel(unit)
    if len(all_values) == 0:
        style.no_data(ax)
        return
    high = 0.0
    for label, of_run in values.items():
        x, share = sampling.cdf_points(of_run)
        ax.step(x * factor, share * 100, where="post", color=colours[label], lw=1.5)
        high = max(high, float(x[-1]) * factor if len(x) else 0.0)
    if style.wants_log(all_values):
        low = float(np.percentile(all_values[all_values > 0], 1)) * factor
        style.log_axis(ax, "x", low * 0.8, high * 1.05)
    else:
        ax.set_xlim(0, high * 1.03 if high > 0 else 1)
    ax.set_ylim(0, 103)
    style.tidy(ax)
