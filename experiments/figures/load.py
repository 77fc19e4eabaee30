"""Charts of what the replicas did over time: throughput, queues, KV cache, batches.

Knows the steps frame and, for rates of tokens and requests, the requests frame. Several replicas
are added up; where a share is shown (KV cache) they are drawn apart.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.figures import legend, sampling, style


def _replicas(steps: pd.DataFrame) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(replica, its columns) in order of the replica's number."""
    columns = {name: steps[name].to_numpy() for name in steps.columns}
    numbers = np.unique(columns["replica"])
    for number in numbers:
        mine = slice(None) if len(numbers) == 1 else columns["replica"] == number
        yield int(number), {name: values[mine] for name, values in columns.items()}


def _sum_note(steps: pd.DataFrame) -> str:
    """What a chart says that adds up several replicas."""
    replicas = steps["replica"].nunique()
    return f"sum of {replicas} replicas" if replicas > 1 else ""


def _total(steps: pd.DataFrame, name: str, edges: np.ndarray) -> np.ndarray:
    """Mean over time in each bin of a state, summed over the replicas."""
    total = np.zeros(len(edges) - 1)
    for _, columns in _replicas(steps):
        total += sampling.held_mean(columns["start_s"], columns["duration_s"], columns[name], edges)
    return total


def _fill(
    ax: Axes, edges: np.ndarray, values: np.ndarray, color: str, label: str | None = None
) -> None:
    """Line over a pale area, one point a bin."""
    middle = (edges[1:] + edges[:-1]) / 2
    ax.fill_between(middle, values, color=color, alpha=0.16, lw=0)
    ax.plot(middle, values, color=color, lw=1.3, label=label)


def _time_axes(axes: Iterable[Axes], end: float) -> None:
    """Panels over the time of a run of `end` seconds; the last one names the axis."""
    scale, unit = style.time_unit(end)
    for ax in axes:
        ax.set_xlim(0, max(end / scale, 1e-9))
        style.tidy(ax, xbins=8, ybins=4)
        ax.set_ylim(bottom=0)
        last = ax
    last.set_xlabel(f"time ({unit})")


def _is_empty(axes: Iterable[Axes], timed: Axes, end: float) -> bool:
    """Whether nothing happened; then every panel says so, and `timed` names the axis of time."""
    if end > 0:
        return False
    for ax in axes:
        style.no_data(ax)
    timed.set_xlabel(f"time ({style.time_unit(end)[1]})")
    return True


@style.styled
def throughput_over_time(requests: pd.DataFrame, steps: pd.DataFrame) -> Figure:
    """Output tokens, prompt tokens computed, and requests arriving and finishing, per second."""
    figure, axes = style.panels(
        "Throughput over time",
        3,
        1,
        height=4.8,
        hspace=0.36,
        sharex=True,
        note=_sum_note(steps),
    )
    output, prompt, flow = axes.flat
    output.set_title("output tokens")
    prompt.set_title("prompt tokens computed (recomputed ones included, cached ones not)")
    flow.set_title("requests")
    for ax in axes.flat:
        ax.set_ylabel("per second")
    end = sampling.run_span(requests, steps)
    if _is_empty(axes.flat, flow, end):
        return figure
    scale, _ = style.time_unit(end)
    edges = sampling.time_edges(end, bins=120)
    shown = edges / scale
    _fill(output, shown, sampling.rate(sampling.token_times(requests), edges), style.BLUE)
    if len(steps):
        starts = steps["start_s"].to_numpy(dtype=np.float64)
        computed = sampling.rate(starts, edges, steps["prefill_tokens"].to_numpy())
        _fill(prompt, shown, computed, style.ORANGE)
    _draw_flow(flow, requests, sampling.time_edges(end, bins=40), scale)
    _time_axes(axes.flat, end)
    if not len(steps):
        _say(prompt, "not seen by a client")
    return figure


def _draw_flow(ax: Axes, requests: pd.DataFrame, edges: np.ndarray, scale: float) -> None:
    """Requests that arrive and that finish, per second."""
    arrivals = sampling.rate(requests["arrival_s"].to_numpy(), edges)
    done = requests["finish_s"].to_numpy(dtype=np.float64)
    finishes = sampling.rate(done[~np.isnan(done)], edges)
    ax.stairs(arrivals, edges / scale, color=style.GREY, lw=1.3, label="arriving")
    ax.stairs(finishes, edges / scale, color=style.GREEN, lw=1.6, label="finishing")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1.02), ncols=2)


@style.styled
def queue_over_time(steps: pd.DataFrame) -> Figure:
    """Requests running and waiting, and preemptions per second."""
    figure, axes = style.panels(
        "Running, waiting and preempted requests",
        2,
        1,
        height=3.9,
        hspace=0.4,
        sharex=True,
        gridspec_kw={"height_ratios": [2.2, 1]},
        note=_sum_note(steps),
    )
    state, preempted = axes.flat
    state.set_title("requests")
    state.set_ylabel("requests")
    preempted.set_title("preemptions")
    preempted.set_ylabel("per second")
    end = sampling.last_step_end(steps)
    if _is_empty(axes.flat, preempted, end):
        return figure
    scale, _ = style.time_unit(end)
    edges = sampling.time_edges(end)
    _fill(state, edges / scale, _total(steps, "running", edges), style.BLUE, "running")
    _fill(state, edges / scale, _total(steps, "waiting", edges), style.VERMILLION, "waiting")
    state.legend(loc="lower right", bbox_to_anchor=(1, 1.02), ncols=2)
    coarse = sampling.time_edges(end, bins=80)
    rate = sampling.rate(steps["start_s"].to_numpy(), coarse, steps["preempted"].to_numpy())
    preempted.stairs(rate, coarse / scale, fill=True, color=style.PURPLE)
    _time_axes(axes.flat, end)
    style.whole_ticks(state.yaxis)
    if not rate.any():
        _say(preempted, "none")
    return figure


def _say(ax: Axes, text: str) -> None:
    """Words in the place of a curve; the axis of time stays."""
    ax.set_ylim(0, 1)
    ax.set_yticks([0])
    middle: dict[str, Any] = {"ha": "center", "va": "center", "color": style.GREY}
    ax.text(0.5, 0.5, text, transform=ax.transAxes, **middle)


@style.styled
def kv_usage_over_time(
    steps: pd.DataFrame, num_kv_blocks: int | Sequence[int] | None = None
) -> Figure:
    """KV blocks in use over time, in percent of the capacity where it is known."""
    figure, axes = style.panels("KV cache use over time", height=2.5, top=0.48)
    ax = axes[0, 0]
    known = num_kv_blocks is not None
    ax.set_ylabel("blocks in use (%)" if known else "blocks in use")
    end = sampling.last_step_end(steps)
    if _is_empty(axes.flat, ax, end):
        return figure
    scale, _ = style.time_unit(end)
    edges = sampling.time_edges(end)
    shares = []
    for number, columns in _replicas(steps):
        capacity = num_kv_blocks[number] if isinstance(num_kv_blocks, Sequence) else num_kv_blocks
        factor = 100 / capacity if capacity else 1.0
        used = columns["kv_blocks_used"] * factor
        shares.append(sampling.held_mean(columns["start_s"], columns["duration_s"], used, edges))
    _draw_shares(figure, ax, edges / scale, np.array(shares))
    _time_axes([ax], end)
    if known:
        ax.set_ylim(0, 104)
        ax.set_yticks([0, 25, 50, 75, 100])
    return figure


def _draw_shares(figure: Figure, ax: Axes, edges: np.ndarray, shares: np.ndarray) -> None:
    """One replica: an area. A few: a line each. Many: their mean and range."""
    middle = (edges[1:] + edges[:-1]) / 2
    if len(shares) == 1:
        _fill(ax, edges, shares[0], style.GREEN)
        return
    if len(shares) <= 4:
        lines = [
            ax.plot(middle, share, color=color, lw=1.2)[0]
            for share, color in zip(shares, style.SERIES, strict=False)
        ]
        legend.legend_above(figure, lines, [f"replica {i}" for i in range(len(lines))])
        return
    band = ax.fill_between(
        middle, shares.min(axis=0), shares.max(axis=0), color=style.GREEN, alpha=0.2, lw=0
    )
    (line,) = ax.plot(middle, shares.mean(axis=0), color=style.GREEN)
    names = [f"mean of {len(shares)} replicas", "lowest to highest"]
    legend.legend_above(figure, [line, band], names)


@style.styled
def batch_composition(steps: pd.DataFrame) -> Figure:
    """Prefill and decode tokens in a step over time, and the time a step takes by its tokens."""
    figure, axes = style.panels(
        "What a step is made of",
        1,
        2,
        height=3.2,
        wspace=0.75,
        gridspec_kw={"width_ratios": [1.7, 1]},
        note="on the right, steps with prefill tokens in them are orange",
    )
    mix, price = axes.flat
    mix.set_title("tokens in a step (mean)")
    mix.set_ylabel("tokens")
    price.set_title("duration of a step")
    price.set_xlabel("tokens in the step")
    price.set_ylabel("ms")
    end = sampling.last_step_end(steps)
    if _is_empty(axes.flat, mix, end):
        return figure
    scale, _ = style.time_unit(end)
    _stack(mix, steps, sampling.time_edges(end, bins=min(100, max(len(steps) // 3, 1))), scale)
    _time_axes([mix], end)
    colours = {"prefill": style.ORANGE, "decode": style.BLUE}
    legend.legend_above(figure, [Patch(color=c) for c in colours.values()], list(colours))
    _step_price(price, steps)
    return figure


def _stack(ax: Axes, steps: pd.DataFrame, edges: np.ndarray, scale: float) -> None:
    starts = steps["start_s"].to_numpy()
    count = np.maximum(np.histogram(starts, edges)[0], 1)
    decode = np.histogram(starts, edges, weights=steps["decode_tokens"].to_numpy())[0] / count
    prefill = np.histogram(starts, edges, weights=steps["prefill_tokens"].to_numpy())[0] / count
    shown = edges / scale
    ax.stairs(decode + prefill, shown, baseline=decode, fill=True, color=style.ORANGE)
    ax.stairs(decode, shown, fill=True, color=style.BLUE)


def _step_price(ax: Axes, steps: pd.DataFrame) -> None:
    index = sampling.thin(len(steps), 2500)
    tokens = steps["scheduled_tokens"].to_numpy()[index]
    duration = steps["duration_s"].to_numpy()[index] * 1e3
    prefills = steps["prefill_tokens"].to_numpy()[index] > 0
    for mask, color in ((prefills, style.ORANGE), (~prefills, style.BLUE)):
        ax.plot(tokens[mask], duration[mask], ".", color=color, ms=3.5, mew=0, alpha=0.6)
    ax.set_xlim(0, float(tokens.max()) * 1.04 + 1)
    ax.set_ylim(0, float(duration.max()) * 1.06)
    style.tidy(ax)
