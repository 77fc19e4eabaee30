"""Charts of the latencies of one run: distributions, course over time, token gaps and their tail.

Knows the requests frame (``experiments.tables.requests_frame``). The optional SLO only draws
its limits.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures import legend, sampling, style
from workbench.metrics import SLO

NAMES = {
    "ttft_s": "time to first token (TTFT)",
    "tpot_s": "time per output token (TPOT)",
    "itl_s": "inter-token latency (ITL)",
    "e2e_s": "end-to-end latency (E2E)",
    "queue_s": "queue time",
}
MARGIN = 0.01  # beside what is drawn, as a part of it
SHORT_NAMES = {
    "ttft_s": "first token (TTFT)",
    "tpot_s": "per token (TPOT)",
    "itl_s": "token gaps (ITL)",
    "e2e_s": "end to end (E2E)",
    "queue_s": "queue time",
}


def values_of(requests: pd.DataFrame, name: str) -> np.ndarray:
    """All values of one latency in seconds without NaN; ``itl_s`` gives every gap."""
    if name == "itl_s":
        return sampling.all_gaps(requests)
    values = requests[name].to_numpy(dtype=np.float64)
    return values[~np.isnan(values)]


def limit_of(slo: SLO | None, name: str) -> float | None:
    """The SLO's limit for this latency, if there is one."""
    return getattr(slo, name, None) if slo is not None else None


@style.styled
def latency_cdf(requests: pd.DataFrame, slo: SLO | None = None) -> Figure:
    """Cumulative distributions of TTFT, TPOT, ITL and E2E with median, p99 and SLO marked."""
    figure, axes = style.panels(
        "Latency distributions",
        2,
        2,
        height=4.9,
        hspace=0.78,
        note="share of requests (of token gaps for ITL) at or below a latency",
    )
    for ax, name in zip(axes.flat, ("ttft_s", "tpot_s", "itl_s", "e2e_s"), strict=True):
        _cdf_panel(ax, name, values_of(requests, name), limit_of(slo, name))
    return figure


def _cdf_panel(ax: Axes, name: str, values: np.ndarray, limit: float | None) -> None:
    ax.set_title(SHORT_NAMES[name])
    ax.set_ylabel("share (%)")
    x, share = sampling.cdf_points(values)
    factor, unit = style.latency_unit(float(np.median(x)) if len(x) else 1.0)
    ax.set_xlabel(unit)
    if len(x) == 0:
        style.no_data(ax)
        return
    ax.step(x * factor, share * 100, where="post", color=style.BLUE)
    median, p99 = np.percentile(values, [50, 99]) * factor
    low, high = _range(x * factor, limit, factor)
    if style.wants_log(x):
        style.log_axis(ax, "x", low, high)
    else:
        ax.set_xlim(0, high)
    ax.set_ylim(0, 103)
    style.tidy(ax)
    ax.plot([median, p99], [50, 99], "o", color=style.BLUE, ms=4)
    texts = [f"{n} {style.compact(v)} {unit}" for n, v in (("p50", median), ("p99", p99))]
    style.side_note(ax, "   ".join(texts))
    if limit is not None:
        ax.axvline(limit * factor, color=style.VERMILLION, lw=1, ls=(0, (4, 3)))
        ax.annotate(
            "SLO",
            (limit * factor, 5),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            size=8,
            color=style.VERMILLION,
        )


def _range(x: np.ndarray, limit: float | None, factor: float) -> tuple[float, float]:
    """Axis range that shows the bulk, the tail and the limit."""
    positive = x[x > 0]
    low = float(np.percentile(positive, 1)) * 0.8 if len(positive) else 1e-3
    high = float(x[-1]) * 1.05
    if limit is not None:
        high = max(high, limit * factor * 1.15)
        low = min(low, limit * factor * 0.8)
    return low, high if high > 0 else 1.0


@style.styled
def latency_over_time(requests: pd.DataFrame, slo: SLO | None = None) -> Figure:
    """TTFT, TPOT and E2E of each request at its arrival, with median and p95 over time."""
    figure, axes = style.panels(
        "Latency over time",
        3,
        1,
        height=5.2,
        hspace=0.36,
        sharex=True,
        note="one dot a request, at its arrival",
    )
    arrival = requests["arrival_s"].to_numpy(dtype=np.float64)
    end = float(arrival.max()) if len(arrival) else 0.0
    scale, unit = style.time_unit(end)
    lines: list[Line2D] = []
    for ax, name in zip(axes.flat, ("ttft_s", "tpot_s", "e2e_s"), strict=True):
        values = requests[name].to_numpy(dtype=np.float64)
        drawn = _course(ax, name, arrival, values, scale, limit_of(slo, name))
        lines = drawn if len(drawn) > len(lines) else lines
    axes.flat[-1].set_xlabel(f"arrival time ({unit})")
    # dots of the first and the last arrival are whole only with some room beside them
    span = max(end / scale, 1e-9)
    axes.flat[-1].set_xlim(-MARGIN * span, (1 + MARGIN) * span)
    if lines:
        names = ["request", "median", "p95", "SLO limit"][: len(lines)]
        lines[0] = Line2D([], [], ls="", marker=".", color=style.SKY, ms=8, mew=0)
        legend.legend_above(figure, lines, names)
    return figure


def _course(
    ax: Axes,
    name: str,
    arrival: np.ndarray,
    values: np.ndarray,
    scale: float,
    limit: float | None,
) -> list[Line2D]:
    """Dots and percentile lines of one latency; returns the handles for the legend."""
    has = ~np.isnan(values)
    times, values = arrival[has], values[has]
    factor, unit = style.latency_unit(float(np.median(values)) if len(values) else 1.0)
    ax.set_title(NAMES[name])
    ax.set_ylabel(unit)
    if len(values) == 0:
        style.no_data(ax)
        return []
    handles = _dots(ax, times / scale, values * factor)
    edges = sampling.time_edges(float(times.max()), 0.0, int(np.clip(len(times) / 25, 4, 60)))
    median, p95 = sampling.binned_percentiles(times, values * factor, edges, [50, 95])
    middle = (edges[1:] + edges[:-1]) / 2 / scale
    handles += ax.plot(middle, median, color=style.BLUE)
    handles += ax.plot(middle, p95, color=style.VERMILLION, lw=1.2)
    _scale_to(ax, values * factor, None if limit is None else limit * factor)
    low, top = ax.get_ylim()
    if limit is not None and low <= limit * factor <= top:
        handles.append(ax.axhline(limit * factor, color=style.INK, lw=0.9, ls=(0, (4, 3))))
    style.tidy(ax, xbins=8, ybins=4)
    return handles


def _scale_to(ax: Axes, values: np.ndarray, limit: float | None) -> None:
    """A vertical axis for the values, and for a limit near them; one far away would flatten all."""
    top = float(values.max())
    if limit is not None and limit < 2 * top:
        top = max(top, limit)
    if style.wants_log(values):
        low = float(np.percentile(values[values > 0], 1))
        if limit is not None and limit > low / 2:
            low = min(low, limit)
        style.log_axis(ax, "y", low * 0.8, top * 1.2)
    else:
        ax.set_ylim(0, top * 1.05 if top > 0 else 1)


def _dots(ax: Axes, x: np.ndarray, y: np.ndarray) -> list[Line2D]:
    """A dot a request; of very many an even choice, the paler the more."""
    shown = sampling.thin(len(x), 3000)
    alpha = float(np.clip(800 / len(shown), 0.3, 0.8))
    return ax.plot(x[shown], y[shown], ".", color=style.SKY, ms=3.2, mew=0, alpha=alpha)


@style.styled
def itl_distribution(requests: pd.DataFrame) -> Figure:
    """Histogram of every gap between tokens, and the share of gaps longer than a given time.

    Gaps of 0 (tokens that leave together) have no place on a log axis; a note says how many.
    """
    gaps = sampling.all_gaps(requests) * 1e3
    count, gaps = len(gaps), gaps[gaps > 0]
    together = 1 - len(gaps) / count if count else 0.0
    note = f"{together:.1%} of the gaps are 0: tokens that leave together" if together else ""
    title = "Gaps between tokens (ITL)"
    figure, axes = style.panels(title, 1, 2, height=3.0, wspace=0.75, note=note)
    bulk, tail = axes.flat
    bulk.set_title("all gaps")
    bulk.set_xlabel("gap (ms)")
    bulk.set_ylabel("share of gaps (%)")
    tail.set_title("tail")
    tail.set_xlabel("gap (ms)")
    tail.set_ylabel("gaps longer than this (%)")
    if len(gaps) == 0:
        style.no_data(bulk)
        style.no_data(tail)
        return figure
    low, high = float(gaps.min()) * 0.9, float(gaps.max()) * 1.1
    bins = np.geomspace(low, high, 70)
    counts, _ = np.histogram(gaps, bins)
    bulk.stairs(counts / len(gaps) * 100, bins, fill=True, color=style.SKY, alpha=0.75)
    style.log_axis(bulk, "x", low, high)
    bulk.set_ylim(0, counts.max() / len(gaps) * 106)
    _mark_percentiles(bulk, gaps)
    x, share = sampling.cdf_points(gaps, 600)
    tail.step(x[:-1], (1 - share[:-1]) * 100, where="post", color=style.BLUE)
    style.log_axis(tail, "x", low, high)
    style.log_axis(tail, "y", max(100 / len(gaps), 1e-5) * 0.8, 130)
    style.tidy(bulk)
    return figure


def _mark_percentiles(ax: Axes, gaps: np.ndarray) -> None:
    """Vertical lines at p50 and p99, their values beside the panel's title."""
    p50, p99 = np.percentile(gaps, [50, 99])
    for value in (p50, p99):
        ax.axvline(value, color=style.VERMILLION, lw=1)
    style.side_note(ax, f"p50 {style.compact(p50)} ms   p99 {style.compact(p99)} ms")
