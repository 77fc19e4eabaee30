"""The life of single requests as bars: queued, prefill, decode; or to the first token, decode.

Knows the requests frame. Where it has no times of scheduling, as that of a load test, whose client
sees none, the time before the first token is one bar. Meant for runs of some dozens of requests;
of a longer run it shows the first ones and says so. Gaps inside a request (preemption,
recomputation) show as breaks in the decode bar.
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
PHASES_OF_A_CLIENT = (("to first token", style.PALE), ("decode", style.BLUE))


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
    is_seen_inside = _is_seen_inside(requests)
    phases = PHASES if is_seen_inside else PHASES_OF_A_CLIENT
    waits = _inside_waits if is_seen_inside else _client_waits
    spans_of_phases = [_finite(spans) for spans in (*waits(shown), _decode(shown))]
    for (_, color), spans in zip(phases, spans_of_phases, strict=True):
        ax.add_collection(PolyCollection(_boxes(spans), facecolors=color, edgecolors="none"))
    ax.set_xlim(*_limits(shown))
    ax.set_ylim(len(shown) - 0.4, -0.6)
    style.tidy(ax, xbins=8, ybins=8)
    ax.grid(visible=False, axis="y")
    legend.legend_above(figure, [Patch(color=c) for _, c in phases], [n for n, _ in phases])
    return figure


def _limits(requests: pd.DataFrame) -> tuple[float, float]:
    last = requests[["arrival_s", "first_token_s", "finish_s"]].max().max()
    first = float(requests["arrival_s"].min())
    return (0.0 if first < 0.2 * last else first), max(float(last), first + 1e-6)


def _is_seen_inside(requests: pd.DataFrame) -> bool:
    """Whether somebody saw when requests were scheduled, or none came so far."""
    has_token = requests["first_token_s"].notna()
    return bool(requests["first_scheduled_s"].notna().any() or not has_token.any())


def _inside_waits(requests: pd.DataFrame) -> list[np.ndarray]:
    """(row, start, end) of queued and of prefill, an array of shape (bars, 3) for each."""
    rows, arrival, scheduled, first, finish = _times(requests)
    return [
        np.column_stack([rows, arrival, np.where(np.isnan(scheduled), finish, scheduled)]),
        np.column_stack([rows, scheduled, np.where(np.isnan(first), finish, first)]),
    ]


def _client_waits(requests: pd.DataFrame) -> list[np.ndarray]:
    """(row, start, end) of the time to the first token, shape (bars, 3)."""
    rows, arrival, _, first, finish = _times(requests)
    return [np.column_stack([rows, arrival, np.where(np.isnan(first), finish, first)])]


def _decode(requests: pd.DataFrame) -> np.ndarray:
    """(row, start, end) of the pieces of decode, shape (bars, 3)."""
    rows, _, _, first, _ = _times(requests)
    pieces = [
        piece
        for row, start, gaps in zip(rows, first, requests["itl_s"], strict=True)
        if not np.isnan(start)
        for piece in _pieces(row, start, np.asarray(gaps, dtype=np.float64))
    ]
    return np.array(pieces).reshape(-1, 3)


def _times(requests: pd.DataFrame) -> list[np.ndarray]:
    """Rows, arrival, scheduled, first token, finish: shape (requests,) each, seconds but the rows.

    What has not been is NaN.
    """
    names = ("arrival_s", "first_scheduled_s", "first_token_s", "finish_s")
    rows = np.arange(len(requests), dtype=np.float64)
    return [rows, *(requests[name].to_numpy(dtype=np.float64) for name in names)]


def _finite(spans: np.ndarray) -> np.ndarray:
    return spans[~np.isnan(spans).any(axis=1)]


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
