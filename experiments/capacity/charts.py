"""Charts of a capacity search: the rates found, latency against the rate, cost against latency.

Knows the frames of `results`. Every figure is a function: table in, `Figure` out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.capacity.results import Capacities, pareto
from experiments.figures import legend, style

MAX_SERIES = len(style.SERIES)
OTHERS = "others"
DEAR = 20.0  # times the least cost: dearer points would press the others together
BARS = (
    ("rate_per_s", "capacity", "{arrivals}/s"),
    ("rate_per_gpu_per_s", "capacity of a GPU", "{arrivals}/s"),
    ("cost_per_million_output_tokens", "cost of a million\noutput tokens", "US$"),
)


def figures(capacities: Capacities) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of the charts that the results call for."""
    table = capacities.table
    if table.empty:
        return
    yield "capacity", capacity_bars(capacities.over_seeds)
    if capacities.probes.empty:
        return
    limits = capacities.objectives
    # lines of several seeds would hide each other
    table = table.drop_duplicates("group")
    names = table.set_index("label")["group"]
    probes = capacities.probes.assign(label=capacities.probes["label"].map(names))
    probes = probes[probes["label"].notna()]
    table = table.assign(label=table["group"])
    yield "latency_vs_rate", latency_vs_rate(table, probes, limits)
    if probes["cost"].notna().any():
        yield "cost_vs_latency", cost_vs_latency(table, probes, limits)


@style.styled
def capacity_bars(table: pd.DataFrame) -> Figure:
    """Rate, rate of a GPU and cost of every configuration; no bar where there is no such number.

    The table is `Capacities.over_seeds`; with several seeds a line goes from lowest to highest.
    """
    labels = [style.wrapped(str(label)) for label in table["label"]]
    arrivals = str(table["arrivals"].iloc[0])
    bars = [bar for bar in BARS if bar[0] in table and table[bar[0]].notna().any()]
    left = max(legend.text_inches(labels, 8) + 0.2, 0.6)
    step = 0.28 + 0.13 * max(label.count("\n") for label in labels)
    figure, axes = style.panels(
        "Highest rate within the objectives", 1, len(bars),
        note="mean over the seeds, and their range" if (table["seeds"] > 1).any() else "",
        height=1.5 + step * len(labels), width=max(style.WIDTH, left + len(bars) * 2.1),
        left=left, wspace=0.3, top=0.78, sharey=True,
    )  # fmt: skip
    colours = style.row_colours(labels)
    for ax, (name, title, unit) in zip(axes.flat, bars, strict=True):
        values = _array(table[name])
        ax.barh(np.arange(len(values)), np.nan_to_num(values), 0.62, color=colours)
        low, high = (_array(table[f"{name}_{end}"]) for end in ("low", "high"))
        ax.hlines(np.arange(len(values)), low, high, color=style.INK, lw=1.2, zorder=3)
        top = float(np.nanmax(high)) or 1.0
        for row, value in enumerate(values):
            text = "none" if np.isnan(value) else style.compact(float(value))
            place = 0.0 if np.isnan(value) else float(high[row])
            ax.text(place + top * 0.02, row, text, va="center", size=8)
        ax.set_xlim(0, top * 1.25)
        ax.set_title(title)
        ax.set_xlabel(unit.format(arrivals=arrivals))
        ax.grid(visible=False, axis="y")
        style.tidy_x(ax, 4)
    axes[0, 0].set_yticks(np.arange(len(labels)), labels)
    axes[0, 0].set_ylim(len(labels) - 0.45, -0.55)
    return figure


@style.styled
def latency_vs_rate(
    table: pd.DataFrame, probes: pd.DataFrame, limits: Mapping[str, float]
) -> Figure:
    """Each limited latency against the rate; full markers pass, hollow ones do not.

    The dashed line is the limit. Of many configurations the best have a colour.
    """
    names = latency_names(limits)
    series = _series(table, probes, _good(table, probes), names)
    figure, axes = style.panels(
        "Latency against the rate", 1, len(names), height=_height(series), wspace=0.75,
        width=max(style.WIDTH, 3.7 * len(names)),
        note="filled: within all objectives; hollow: not; dashed: the limit",
    )  # fmt: skip
    arrivals = str(table["arrivals"].iloc[0])
    for ax, name in zip(axes.flat, names, strict=True):
        scale, unit = _unit(name, probes, limits)
        drawn: list[np.ndarray] = []
        for _, rows, look in series:
            rows = rows[_near(rows)]
            y = _array(rows[name]) * scale
            passes = rows["passes"].to_numpy(dtype=bool)
            _line_with_verdicts(ax, rows["rate_per_s"].to_numpy(), y, passes, look)
            drawn.append(y)
        _latency_axis(ax, name, unit, drawn, limits.get(name, np.nan) * scale)
        ax.set_xlabel(f"{arrivals} per second")
        ax.set_xlim(0, None)
        style.tidy_x(ax, 6)
    _legend(figure, series)
    return figure


@style.styled
def cost_vs_latency(
    table: pd.DataFrame, probes: pd.DataFrame, limits: Mapping[str, float]
) -> Figure:
    """Dollars for a million output tokens against each limited latency, with the Pareto front.

    Every simulation within the objectives is a point: at a lower rate a server is faster and its
    tokens dearer. The front is in steps: the least cost for so much latency.
    """
    names = latency_names(limits)
    good = _good(table, probes)
    dear = good["cost"] > DEAR * good["cost"].min()
    series = _series(table, good[~dear], good, names)
    figure, axes = style.panels(
        "Cost against latency", 1, len(names), height=_height(series), wspace=0.75,
        width=max(style.WIDTH, 3.7 * len(names)),
        note="each point a rate within the objectives, the large one the capacity; grey steps: the "
        "Pareto front" + ("; what costs 20 times the least is cut" if dear.any() else ""),
    )  # fmt: skip
    for ax, name in zip(axes.flat, names, strict=True):
        scale, unit = _unit(name, probes, limits)
        for label, rows, look in series:
            x, y = _array(rows[name]) * scale, _array(rows["cost"])
            ax.plot(x, y, lw=1.0, ms=3.5 if look["marker"] else 0, zorder=3 - (not label), **look)
            last = {"marker": "o"} | {key: value for key, value in look.items() if value}
            ax.plot(x[-1:], y[-1:], ms=8.5 if label else 4, mec="white", mew=0.8,
                    zorder=4 if label else 2, **last)  # fmt: skip
        _draw_front(ax, good[~dear], name, scale)
        _cost_axes(ax, name, unit)
    _legend(figure, series)
    return figure


def latency_names(limits: Iterable[str]) -> list[str]:
    """The latencies to draw: the limited ones, at most three, or the usual two."""
    names = [name for name in limits if name != "attainment"]
    return (names or ["ttft_p99", "tpot_p99"])[:3]


Series = list[tuple[str, pd.DataFrame, dict[str, Any]]]


def _series(
    table: pd.DataFrame, probes: pd.DataFrame, good: pd.DataFrame, names: Sequence[str]
) -> Series:
    """(label, simulations by rate, look) of the configurations that have any.

    Those that get no colour come first and have an empty label.
    """
    rows_of = {
        str(label): probes[probes["label"] == label].sort_values("rate_per_s")
        for label in table["label"]
    }
    labels = [label for label, rows in rows_of.items() if len(rows)]
    shown = labels if len(labels) <= MAX_SERIES else _best(table, good, labels, names)
    grey = {"color": style.PALE, "marker": ""}
    out: Series = [("", rows_of[label], grey) for label in labels if label not in shown]
    for i, (label, colour) in enumerate(zip(shown, style.series_colours(shown), strict=True)):
        marker = style.MARKERS[i % len(style.MARKERS)]
        out.append((label, rows_of[label], {"color": colour, "marker": marker}))
    return out


def _best(
    table: pd.DataFrame, good: pd.DataFrame, labels: Sequence[str], names: Sequence[str]
) -> list[str]:
    """So many configurations as colours go round: those on a front, then those of high rates."""
    on_front = {
        str(good["label"].iloc[i])
        for name in names
        for i in pareto(list(zip(_floats(good[name]), _floats(good["cost"]), strict=True)))
    }
    rates = dict(zip(map(str, table["label"]), _floats(table["rate_per_s"]), strict=True))
    ranked = sorted(labels, key=lambda label: (label not in on_front, -rates[label]))
    return [label for label in labels if label in ranked[:MAX_SERIES]]


def _floats(column: pd.Series) -> list[float]:
    values: list[float] = _array(column).tolist()
    return values


def _array(column: pd.Series) -> np.ndarray:
    """Numbers of shape (rows,); NaN for what is none."""
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)


def _good(table: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """Simulations within the objectives, of rates from a tenth of the capacity on.

    At lower rates a server is hardly faster and its tokens cost a fortune.
    """
    capacity = pd.to_numeric(probes["label"].map(table.set_index("label")["rate_per_s"]))
    return probes[probes["passes"].astype(bool) & (probes["rate_per_s"] >= 0.1 * capacity)]


def _height(series: Series) -> float:
    """Inches of a chart: as many as its legend takes when it stands beside it."""
    labels = [style.wrapped(label) for label, _, _ in series if label]
    lines = sum(label.count("\n") + 1 for label in labels)
    return max(3.6, 0.17 * lines + 0.08 * len(labels) + 1.0)


def _near(rows: pd.DataFrame) -> pd.Series:
    """Simulations up to half as much again as the capacity: further ones would hide the rest."""
    capacity = rows["rate_per_s"].where(rows["passes"].astype(bool)).max()
    if not capacity > 0:
        return rows["rate_per_s"] > 0
    return (rows["rate_per_s"] <= 1.5 * capacity) & (rows["rate_per_s"] >= 0.02 * capacity)


def _unit(name: str, probes: pd.DataFrame, limits: Mapping[str, float]) -> tuple[float, str]:
    limit = limits.get(name)
    typical = limit if limit is not None else float(probes[name].median())
    return style.latency_unit(typical)


def _line_with_verdicts(
    ax: Axes, x: np.ndarray, y: np.ndarray, passes: np.ndarray, look: Mapping[str, Any]
) -> None:
    ax.plot(x, y, color=look["color"], lw=1.2, zorder=2 if look["marker"] else 1)
    if look["marker"]:
        ax.plot(x[passes], y[passes], ls="", ms=5, zorder=3, **look)
        ax.plot(x[~passes], y[~passes], ls="", ms=5, mfc="white", zorder=3, **look)


def _latency_axis(
    ax: Axes, name: str, unit: str, drawn: Sequence[np.ndarray], limit: float
) -> None:
    ax.set_title(_title(name))
    ax.set_ylabel(unit)
    values = np.concatenate([*drawn, np.array([limit])])
    values = values[~np.isnan(values) & (values > 0)]
    if len(values) == 0:
        style.no_data(ax)
        return
    low, high = float(values.min()), float(values.max())
    if high > 8 * low:
        style.log_axis(ax, "y", low * 0.8, high * 1.3)
    else:
        ax.set_ylim(0, high * 1.1)
        style.tidy(ax)
    if not np.isnan(limit):
        ax.axhline(limit, color=style.INK, lw=1, ls=(0, (4, 3)), zorder=1)


def _draw_front(ax: Axes, points: pd.DataFrame, name: str, scale: float) -> None:
    x, y = _array(points[name]) * scale, _array(points["cost"])
    front = pareto(list(zip(x.tolist(), y.tolist(), strict=True)))
    # in steps: between two points there is no third one to be had
    ax.step(x[front], y[front], where="post", color=style.INK, lw=2.6, alpha=0.35, zorder=1)


def _cost_axes(ax: Axes, name: str, unit: str) -> None:
    ax.set_title(_title(name))
    ax.set_xlabel(unit)
    ax.set_ylabel("US$ for a million output tokens")
    for which in ("x", "y"):
        getter = "get_xdata" if which == "x" else "get_ydata"
        values = np.concatenate([np.asarray(getattr(line, getter)()) for line in ax.get_lines()])
        values = values[~np.isnan(values) & (values > 0)]
        if len(values) == 0:
            style.no_data(ax)
            return
        low, high = float(values.min()), float(values.max())
        if high > 6 * low:
            style.log_axis(ax, which, low * 0.85, high * 1.15)
        else:
            getattr(ax, f"set_{which}lim")(0, high * 1.08)
    style.tidy(ax)


def _title(name: str) -> str:
    latency, _, statistic = name.partition("_")
    return f"{latency.upper()} {statistic}"


def _legend(figure: Figure, series: Series) -> None:
    looks = {label: look for label, _, look in series if label}
    if others := [look for label, _, look in series if not label]:
        looks[OTHERS] = others[0]
    if len(looks) > 1:
        handles = [Line2D([], [], lw=1.2, ms=5, **look) for look in looks.values()]
        legend.series_legend(figure, handles, list(looks))
