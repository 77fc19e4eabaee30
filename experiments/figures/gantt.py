"""The life of single requests as bars: queued, prefill, decode.

Knows the requests frame. Meant for runs of some dozens of requests; of a longer run it shows the
first ones and says so. Gaps inside a request (preemption, recomputation) show as breaks in the
decode bar.
"""

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.figures import legend, style

MAX_BARS = 60
PHASES = (("queued", style.PALE), ("prefill", style.ORANGE), ("decode", style.BLUE))


@style.styled
def request_gantt(requests: pd.DataFrame, max_requests: int = MAX_BARS) -> Figure:
    """One bar a request in order of arrival, from arrival to finish."""
    shown = requests.sort_values("arrival_s", kind="stable").head(max_requests)
    note = ""
    if len(shown) < len(requests):
        note = f"the first {len(shown)} of {len(requests):,} requests"
    height = 1.2 + 0.085 * max(len(shown), 8)
    figure, axes = style.panels("Life of requests", height=height, top=0.48, note=note)
    ax = axes[0, 0]
    ax.set_ylabel("request, by arrival")
    ax.set_xlabel("time (s)")
    if shown.empty:
        style.no_data(ax)
        return figure
    for (_, color), spans in zip(PHASES, _spans(shown), strict=True):
        ax.add_collection(PolyCollection(_boxes(spans), facecolors=color, edgecolors="none"))
    ax.set_xlim(*_limits(shown))
    ax.set_ylim(len(shown) - 0.4, -0.6)
    style.tidy(ax, xbins=8, ybins=8)
    ax.grid(visible=False, axis="y")
    legend.legend_above(figure, [Patch(color=c) for _, c in PHASES], [n for n, _ in PHASES])
    return figure


def _limits(requests: pd.DataFrame) -> tuple[float, float]:
    last = requests[["arrival_s", "first_token_s", "finish_s"]].max().max()
    first = float(requests["arrival_s"].min())
    return (0.0 if first < 0.2 * last else first), max(float(last), first + 1e-6)


def _spans(requests: pd.DataFrame) -> list[np.ndarray]:
    """(row, start, end) of the bars of each phase, an array of shape (bars, 3) for each."""
    rows = np.arange(len(requests), dtype=np.float64)
    arrival, scheduled, first, finish = (
        requests[name].to_numpy(dtype=np.float64)
        for name in ("arrival_s", "first_scheduled_s", "first_token_s", "finish_s")
    )
    queued = np.column_stack([rows, arrival, np.where(np.isnan(scheduled), finish, scheduled)])
    prefill = np.column_stack([rows, scheduled, np.where(np.isnan(first), finish, first)])
    decode = [
        piece
        for row, start, gaps in zip(rows, first, requests["itl_s"], strict=True)
        if not np.isnan(start)
        for piece in _pieces(row, start, np.asarray(gaps, dtype=np.float64))
    ]
    spans = [queued, prefill, np.array(decode).reshape(-1, 3)]
    return [s[~np.isnan(s).any(axis=1)] for s in spans]


def _pieces(row: float, start: float, gaps: np.ndarray) -> list[tuple[float, float, float]]:
    """Decode bar cut where a gap is far longer than usual for this request."""
    times = start + np.concatenate([[0.0], np.cumsum(gaps)])
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    bounds = [0, *(np.flatnonzero(gaps > max(10 * usual, 0.25)) + 1).tolist(), len(times)]
    return [(row, times[a], times[b - 1]) for a, b in pairwise(bounds)]


def _boxes(spans: np.ndarray) -> list[np.ndarray]:
    """Corners of each bar, shape (4, 2)."""
    row, start, end = spans.T
    low, high = row - 0.36, row + 0.36
    corners = [(start, low), (end, low), (end, high), (start, high)]
    return list(np.stack([np.column_stack(c) for c in corners], axis=1))
