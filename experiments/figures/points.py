"""Charts of operating points: what was measured against what was simulated.

Knows a table with the columns group, users, ttft_ms, tpot_ms (measured), ttft_simulated_ms and
tpot_simulated_ms.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures import legend, style

PANELS = {"ttft": "mean time to first token (ms)", "tpot": "mean time per output token (ms)"}


@style.styled
def measured_against_simulated(points: pd.DataFrame) -> Figure:
    """A mark a point, by group; on the line both are equal."""
    figure, axes = style.panels(
        "Operating points, simulated against measured", 1, 2, height=3.4, left=0.85, wspace=0.95
    )
    groups = list(dict.fromkeys(points["group"]))
    colours = style.series_colours(groups)
    for ax, (name, title) in zip(axes.flat, PANELS.items(), strict=True):
        ax.set_title(title)
        both = points[[f"{name}_ms", f"{name}_simulated_ms"]].to_numpy(dtype=np.float64)
        low, high = both.min() * 0.8, both.max() * 1.25
        for axis in "xy":
            style.log_axis(ax, axis, low, high)
        ax.plot([low, high], [low, high], color=style.GREY, lw=1)
        for group, colour in zip(groups, colours, strict=True):
            mine = both[(points["group"] == group).to_numpy()]
            ax.plot(mine[:, 0], mine[:, 1], "o", color=colour, ms=3.5, mew=0, alpha=0.8)
        ax.set_xlabel("measured")
        ax.set_ylabel("simulated")
    marks = [Line2D([], [], marker="o", ls="", color=colour, ms=4) for colour in colours]
    legend.series_legend(figure, marks, groups)
    return figure


@style.styled
def errors_by_users(points: pd.DataFrame) -> Figure:
    """The error of every point over the number of users, with the median of each number."""
    figure, axes = style.panels("Errors by the number of users", 2, 1, height=4.0, hspace=0.5)
    for ax, (name, title) in zip(axes.flat, PANELS.items(), strict=True):
        ax.set_title(title.rpartition(" (")[0])
        if points.empty:
            style.no_data(ax)
            continue
        _errors(ax, points, name)
    axes.flat[-1].set_xlabel("users")
    return figure


def _errors(ax: Axes, points: pd.DataFrame, name: str) -> None:
    errors = 100 * (points[f"{name}_simulated_ms"] / points[f"{name}_ms"] - 1)
    users = points["users"].to_numpy()
    numbers = np.unique(users)
    place = np.searchsorted(numbers, users)
    ax.axhline(0, color=style.GREY, lw=1)
    ax.plot(place, errors, "o", color=style.BLUE, ms=3.5, mew=0, alpha=0.6)
    medians = [float(np.median(errors[users == number])) for number in numbers]
    ax.plot(range(len(numbers)), medians, "_", color=style.VERMILLION, ms=14, mew=2)
    style.tidy(ax)
    ax.set_xticks(range(len(numbers)), [str(number) for number in numbers])
    ax.set_ylabel("error (%)")
