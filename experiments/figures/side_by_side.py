"""Charts of a measured run and its simulation over each other.

Knows the requests and steps frames of ``experiments.tables`` and a *timeline*: a table with the
column ``time_s`` and any of ``running``, ``waiting``, ``kv_usage`` (0 to 1) and
``output_tokens_per_s``. ``timeline_of`` makes one from a run; a server's own statistics are one
already. Measured is dark and behind, simulated is coloured and in front.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.errors import request_latencies
from experiments.figures import legend, sampling, style

PANELS = {
    "running": ("running requests", 1.0),
    "waiting": ("waiting requests", 1.0),
    "kv_usage": ("KV cache in use (%)", 100.0),
    "output_tokens_per_s": ("output tokens per second", 1.0),
}
LATENCIES = {
    "ttft": "time to first token (TTFT)",
    "tpot": "time per output token (TPOT)",
    "e2e": "end to end (E2E)",
}
NAMES = ("measured", "simulated")
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": style.INK, "lw": 2.4, "alpha": 0.45},
    {"color": style.VERMILLION, "lw": 1.2},
)


def timeline_of(
    requests: pd.DataFrame,
    steps: pd.DataFrame,
    num_kv_blocks: int | Sequence[int] | None = None,
    tick_s: float = 1.0,
) -> pd.DataFrame:
    """The timeline of a run: states at every tick, throughput since the tick before.

    Replicas are added up; ``kv_usage`` is their mean, and missing without ``num_kv_blocks``.
    """
    end = sampling.run_span(requests, steps)
    edges = np.arange(0.0, end + 2 * tick_s, tick_s)
    columns = {"time_s": edges[1:]}
    replicas = [steps[steps["replica"] == number] for number in np.unique(steps["replica"])]
    nothing = np.zeros(len(edges) - 1)
    for name in ("running", "waiting"):
        columns[name] = sum((_state(mine, name, edges[1:]) for mine in replicas), nothing)
    if num_kv_blocks is not None:
        sizes = np.broadcast_to(np.asarray(num_kv_blocks, dtype=np.float64), (len(replicas),))
        shares = [
            _state(mine, "kv_blocks_used", edges[1:]) / size
            for mine, size in zip(replicas, sizes, strict=True)
        ]
        columns["kv_usage"] = np.mean(shares, axis=0) if shares else nothing
    columns["output_tokens_per_s"] = sampling.rate(sampling.token_times(requests), edges)
    return pd.DataFrame(columns)


def _state(steps: pd.DataFrame, name: str, times: np.ndarray) -> np.ndarray:
    """A column of one replica's steps at these times; 0 where no step runs."""
    starts = steps["start_s"].to_numpy(dtype=np.float64)
    order = np.argsort(starts, kind="stable")
    last = np.searchsorted(starts[order], times, side="right") - 1
    row = order[np.maximum(last, 0)]
    lasting = 2 * steps["duration_s"].to_numpy(dtype=np.float64)[row]  # a short pause is none
    runs = (last >= 0) & (times <= starts[row] + lasting)
    return np.where(runs, steps[name].to_numpy(dtype=np.float64)[row], 0.0)


@style.styled
def timelines(
    measured: pd.DataFrame,
    simulated: pd.DataFrame,
    names: tuple[str, str] = NAMES,
    title: str = "The run over time",
) -> Figure:
    """Running, waiting, KV use and throughput over time; a panel for each that both have."""
    shown = [name for name in PANELS if name in measured and name in simulated]
    rows = max(len(shown), 1)
    figure, axes = style.panels(title, rows, 1, height=1.2 + 1.35 * rows, hspace=0.34, sharex=True)
    end = max(
        (float(side["time_s"].max()) for side in (measured, simulated) if len(side)), default=0
    )
    if not shown or end <= 0:
        style.no_data(axes[0, 0])
        return figure
    scale, unit = style.time_unit(end)
    for ax, name in zip(axes.flat, shown, strict=True):
        panel, factor = PANELS[name]
        ax.set_title(panel)
        for side, look in zip((measured, simulated), _LOOKS, strict=True):
            ax.plot(side["time_s"] / scale, side[name] * factor, **look)
        ax.set_xlim(0, end / scale)
        style.tidy(ax, xbins=8, ybins=3)
        ax.set_ylim(bottom=0)
    axes.flat[-1].set_xlabel(f"time ({unit})")
    _legend(figure, names)
    return figure


@style.styled
def latency_cdfs(
    measured: pd.DataFrame,
    simulated: pd.DataFrame,
    names: tuple[str, str] = NAMES,
    title: str = "Latency distributions",
) -> Figure:
    """Cumulative distributions of TTFT, TPOT and E2E of two requests frames."""
    figure, axes = style.panels(title, 1, 3, height=2.9, wspace=0.5)
    sides = [request_latencies(side) for side in (measured, simulated)]
    for ax, (name, panel) in zip(axes.flat, LATENCIES.items(), strict=True):
        ax.set_title(panel.rpartition("(")[2].rstrip(")"))
        _cdfs(ax, [side[name].to_numpy(dtype=np.float64) for side in sides])
    axes[0, 0].set_ylabel("share of requests (%)")
    _legend(figure, names)
    return figure


def _cdfs(ax: Axes, sides: list[np.ndarray]) -> None:
    values = np.concatenate(sides)
    values = values[~np.isnan(values)]
    if not len(values):
        style.no_data(ax)
        return
    factor, unit = style.latency_unit(float(np.median(values)))
    for side, look in zip(sides, _LOOKS, strict=True):
        x, share = sampling.cdf_points(side)
        ax.step(x * factor, share * 100, where="post", **look)
    if style.wants_log(values):
        low = float(np.percentile(values[values > 0], 1)) * 0.8
        style.log_axis(ax, "x", low * factor, float(values.max()) * factor * 1.05)
    else:
        ax.set_xlim(0, float(values.max()) * factor * 1.05)
    ax.set_ylim(0, 103)
    style.tidy(ax, xbins=4)
    ax.set_xlabel(unit)


@style.styled
def request_scatter(
    measured: pd.DataFrame,
    simulated: pd.DataFrame,
    title: str = "Simulated against measured, request by request",
) -> Figure:
    """TTFT, TPOT and E2E of every request that both tables hold; on the line both are equal."""
    figure, axes = style.panels(title, 1, 3, height=3.0, wspace=0.62)
    sides = [
        request_latencies(side.set_index("request_id").drop(columns="itl_s", errors="ignore"))
        for side in (measured, simulated)
    ]
    both = sides[0].join(sides[1].add_suffix("_simulated"), how="inner")
    for ax, (name, panel) in zip(axes.flat, LATENCIES.items(), strict=True):
        pair = both[[name, f"{name}_simulated"]].dropna().to_numpy(dtype=np.float64)
        _scatter(ax, panel.rpartition("(")[2].rstrip(")"), pair)
    axes[0, 0].set_ylabel("simulated")
    return figure


def _scatter(ax: Axes, title: str, pair: np.ndarray) -> None:
    ax.set_title(title)
    if not len(pair):
        style.no_data(ax)
        return
    factor, unit = style.latency_unit(float(np.median(pair)))
    low, high = 0.0, float(pair.max()) * factor * 1.05
    if style.wants_log(pair.ravel()):
        low = float(pair[pair > 0].min()) * factor * 0.8
        for axis in "xy":
            style.log_axis(ax, axis, low, high)
    else:
        ax.set_xlim(low, high)
        ax.set_ylim(low, high)
        style.tidy(ax, xbins=4, ybins=4)
    ax.plot([low, high], [low, high], color=style.GREY, lw=1)
    kept = sampling.thin(len(pair), 3000)
    ax.plot(pair[kept, 0] * factor, pair[kept, 1] * factor, ".", color=style.BLUE, ms=3.5, mew=0)
    ax.set_xlabel(f"measured ({unit})")


def _legend(figure: Figure, names: tuple[str, str]) -> None:
    handles = [Line2D([], [], **look) for look in _LOOKS]
    legend.legend_above(figure, handles, list(names))
