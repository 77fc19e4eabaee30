"""Charts over a swept number: latency against throughput, SLO attainment, any headline metric.

Knows a frame with one row a run, the name of the swept column, and the name of the column that
tells the series apart (for example the policy). Runs without the swept number are left out.
``title`` is that of the swept axis; by default the one that `titles` knows.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments.figures import legend, style
from experiments.figures.titles import axis_title

HEADLINES = {
    "output_tokens_per_s": ("output tokens per second", "tokens/s", 1.0),
    "ttft_s_p99": ("TTFT p99", "s", 1.0),
    "tpot_s_p99": ("TPOT p99", "ms", 1e3),
    "slo_attainment": ("requests within SLO", "%", 100.0),
    "prefix_hit_rate": ("prefix cache hit rate", "%", 100.0),
    "preemptions": ("preemptions", "count", 1.0),
}
ONLY_IF_ANY = ("prefix_hit_rate", "preemptions")
NINETY = 90.0


def _series(runs: pd.DataFrame, x: str, group: str | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """(label, rows sorted by the swept number), in the order in which the labels first appear."""
    numeric = runs.assign(**{x: pd.to_numeric(runs[x], errors="coerce")}).dropna(subset=[x])
    if group is None:
        yield "", numeric.sort_values(x)
        return
    for label in dict.fromkeys(numeric[group]):
        yield str(label), numeric[numeric[group] == label].sort_values(x)


def _draw(
    figure: Figure,
    runs: pd.DataFrame,
    sweep: str,
    group: str | None,
    line: Callable[[pd.DataFrame, dict[str, Any]], None],
) -> None:
    """Call ``line(rows, look)`` for each series and add the legend if there are several.

    Later series are thinner, so that equal ones can be seen to lie on each other.
    """
    series = [(label, rows) for label, rows in _series(runs, sweep, group) if len(rows)]
    colours = style.series_colours([label for label, _ in series])
    looks: list[dict[str, Any]] = [
        {
            "color": colour,
            "marker": style.MARKERS[i % len(style.MARKERS)],
            "lw": max(2.4 - 0.5 * i, 1.2),
            "ms": max(6.0 - 0.8 * i, 4.0),
        }
        for i, colour in enumerate(colours)
    ]
    for (_, rows), look in zip(series, looks, strict=True):
        line(rows, look)
    if group is not None and series:
        handles = [Line2D([], [], **look) for look in looks]
        legend.series_legend(figure, handles, [label for label, _ in series])


def _column(rows: pd.DataFrame, name: str, factor: float = 1.0) -> np.ndarray:
    if name not in rows:
        return np.full(len(rows), np.nan)
    return pd.to_numeric(rows[name], errors="coerce").to_numpy(dtype=np.float64) * factor


def _finish(ax: Axes, *, log: bool) -> None:
    """Limits from what was drawn; says so if nothing was."""
    drawn = [np.asarray(line.get_ydata(), dtype=np.float64) for line in ax.get_lines()]
    y = np.concatenate(drawn) if drawn else np.empty(0)
    y = y[~np.isnan(y)]
    if len(y) == 0:
        style.no_data(ax)
        return
    if log and y.min() > 0 and y.max() > 20 * y.min():
        style.log_axis(ax, "y", float(y.min()) * 0.7, float(y.max()) * 1.4)
    else:
        ax.set_ylim(0, float(y.max()) * 1.08 if y.max() > 0 else 1)
    style.tidy(ax)


@style.styled
def latency_vs_throughput(
    runs: pd.DataFrame,
    sweep: str,
    group: str | None = None,
    title: str | None = None,
    percentile: str = "p99",
) -> Figure:
    """TTFT and TPOT against the throughput reached; points of one series joined by the rate.

    A curve further right and lower is better; where it turns upward the server is full.
    """
    figure, axes = style.panels(
        "Latency against throughput",
        1,
        2,
        height=3.3,
        wspace=0.75,
        note=f"each point one run; joined in the order of: {title or axis_title(sweep)}",
    )
    plans = (("ttft_s", "TTFT", "s", 1.0), ("tpot_s", "TPOT", "ms", 1e3))
    for ax, (_, short, unit, _) in zip(axes.flat, plans, strict=True):
        ax.set_title(f"{short} {percentile}")
        ax.set_ylabel(unit)
        ax.set_xlabel("output tokens per second")

    def line(rows: pd.DataFrame, look: dict[str, Any]) -> None:
        x = _column(rows, "output_tokens_per_s")
        for ax, (name, _, _, factor) in zip(axes.flat, plans, strict=True):
            y = _column(rows, f"{name}_{percentile}", factor)
            ax.plot(x, y, **look)

    _draw(figure, runs, sweep, group, line)
    for ax in axes.flat:
        reached = _column(runs, "output_tokens_per_s")
        ax.set_xlim(0, float(np.nanmax(reached)) * 1.05 if (reached > 0).any() else 1)
        _finish(ax, log=True)
    return figure


@style.styled
def slo_attainment(
    runs: pd.DataFrame, sweep: str, group: str | None = None, title: str | None = None
) -> Figure:
    """Share of requests that met every objective against the swept rate, with the 90 % line."""
    figure, axes = style.panels("Requests within the objectives (SLO)", height=3.0, top=0.5)
    ax = axes[0, 0]
    ax.set_xlabel(title or axis_title(sweep))
    ax.set_ylabel("requests within SLO (%)")

    def line(rows: pd.DataFrame, look: dict[str, Any]) -> None:
        y = _column(rows, "slo_attainment", 100.0)
        ax.plot(rows[sweep], y, **look)

    _draw(figure, runs, sweep, group, line)
    _finish(ax, log=False)
    if ax.get_yticks().size:
        ax.set_ylim(0, 104)
        ax.axhline(NINETY, color=style.GREY, lw=1, ls=(0, (4, 3)))
        ax.annotate("90 %", (1, NINETY), xycoords=("axes fraction", "data"), xytext=(-2, 3),
                    textcoords="offset points", ha="right", size=8, color=style.GREY)  # fmt: skip
    return figure


@style.styled
def metrics_vs_parameter(
    runs: pd.DataFrame,
    sweep: str,
    group: str | None = None,
    title: str | None = None,
    metrics: Sequence[str] = tuple(HEADLINES),
) -> Figure:
    """Headline metrics against a swept number, one panel a metric that any run has."""
    title = title or axis_title(sweep)
    known = [m for m in metrics if _is_told(runs, m)] or list(metrics[:1])
    cols = min(len(known), 2)
    rows = (len(known) + cols - 1) // cols
    figure, axes = style.panels(
        f"Effect of: {title}", rows, cols, height=0.7 + 2.05 * rows, hspace=0.78,
        wspace=0.75,
    )  # fmt: skip
    for ax, metric in zip(axes.flat, known, strict=False):
        name, unit, _ = HEADLINES.get(metric, (metric, "value", 1.0))
        ax.set_title(name)
        ax.set_ylabel(unit)
        ax.set_xlabel(title)

    def line(part: pd.DataFrame, look: dict[str, Any]) -> None:
        for ax, metric in zip(axes.flat, known, strict=False):
            y = _column(part, metric, HEADLINES.get(metric, ("", "", 1.0))[2])
            ax.plot(part[sweep], y, **look)

    _draw(figure, runs, sweep, group, line)
    for ax, metric in zip(axes.flat, known, strict=False):
        _finish(ax, log=metric.endswith(("_p99", "_p50", "_mean")) and "_s_" in metric)
        if HEADLINES.get(metric, ("", "", 1.0))[1] == "count" and ax.get_yticks().size:
            style.whole_ticks(ax.yaxis)
        _swept_ticks(ax, pd.to_numeric(runs[sweep], errors="coerce").dropna().to_numpy())
    for ax in axes.flat[len(known) :]:
        ax.set_axis_off()
    return figure


def _is_told(runs: pd.DataFrame, metric: str) -> bool:
    """Whether any run has the metric; one that counts events needs a run with an event."""
    values = _column(runs, metric)
    if metric in ONLY_IF_ANY:
        return bool((values > 0).any())
    return not np.isnan(values).all()


def _swept_ticks(ax: Axes, values: np.ndarray) -> None:
    """Log scale for a sweep by factors, with a tick at each value that was run if they are few."""
    values = np.unique(values.astype(np.float64))
    if len(values) > 2 and values[0] > 0 and values[-1] >= 8 * values[0]:
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(NullLocator())
    if 1 < len(values) <= 7 and len(ax.get_xticks()):
        ax.xaxis.set_major_locator(FixedLocator(values.tolist()))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: style.compact(v)))
