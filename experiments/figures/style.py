"""The look of every chart: sizes, fonts, colours, axes, saving.

Knows matplotlib and nothing of serving. Figures are made without pyplot, so there is no global
state and no window; margins are set by arithmetic, since a layout solver would cost more than
the drawing. Colours: the palette of Okabe and Ito (2008), told apart with every common form of
colour blindness, its yellow left out because it fades on white.
"""

import functools
import os
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)
from matplotlib.transforms import Transform, blended_transform_factory

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
ORANGE, SKY, GREY, INK = "#E69F00", "#56B4E9", "#7A7F87", "#22262B"
PALE, GRID = "#C9CED6", "#E7EAEE"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY, "#6B4C2A")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
DPI = 120
LOG = ", log scale"
LOG_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
FEWEST_TICKS = 3
WIDTH = 7.4  # inches; 888 pixels, the width of a README column

RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 6,
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9AA1AB",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": "#9AA1AB",
    "ytick.color": "#9AA1AB",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "text.color": INK,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4,
    "legend.handletextpad": 0.5,
    "legend.borderaxespad": 0.0,
    "figure.facecolor": "white",
    "path.simplify_threshold": 0.5,
    "agg.path.chunksize": 20000,
}

P = ParamSpec("P")


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a figure function under the style, whatever the caller's matplotlib settings are.

    A logarithmic axis says so in its label: beside a linear one it is not to be seen at a glance.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            figure = function(*args, **kwargs)
            _name_log_axes(figure)
            return figure

    return wrapper


def _name_log_axes(figure: Figure) -> None:
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            label = axis.get_label_text()
            if axis.get_scale() == "log" and label and not label.endswith(LOG):
                axis.set_label_text(label + LOG)


def panels(
    title: str,
    rows: int = 1,
    cols: int = 1,
    *,
    note: str = "",
    height: float = 3.0,
    width: float = WIDTH,
    left: float = 0.62,
    right: float = 0.18,
    bottom: float = 0.52,
    top: float = 0.62,
    wspace: float = 0.62,
    hspace: float = 0.5,
    **subplot_args: Any,
) -> tuple[Figure, np.ndarray]:
    """Figure with a title line, a grey note under it, and axes of shape (rows, cols).

    All measures in inches, so that a chart can grow without its margins growing. ``wspace`` and
    ``hspace`` are the gaps between panels.
    """
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    top += 0.16 if note else 0.0
    axes = figure.subplots(rows, cols, squeeze=False, **subplot_args)
    panel_width = (width - left - right - wspace * (cols - 1)) / cols
    panel_height = (height - top - bottom - hspace * (rows - 1)) / rows
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=wspace / panel_width,
        hspace=hspace / panel_height,
    )
    for ax in axes[:, 0]:  # labels of stacked panels stand in one line
        ax.yaxis.set_label_coords(0.22 / width, 0.5, transform=_row_transform(figure, ax))
    _head(figure, title, note)
    return figure, axes


def _head(figure: Figure, title: str, note: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.12 / width, 1 - 0.1 / height, title, va="top", size=11, weight="bold")
    if note:
        figure.text(0.12 / width, 1 - 0.31 / height, note, va="top", size=8, color="#5B626B")


def _row_transform(figure: Figure, ax: Axes) -> Transform:
    """Horizontally shares of the figure, vertically shares of the axes."""
    return blended_transform_factory(figure.transFigure, ax.transAxes)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG; the same figure gives the same bytes."""
    figure.savefig(path, dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 4})


def no_data(axes: Axes, text: str = "no data") -> None:
    """Say in the middle of the axes that there is nothing to draw."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.set_xticks([])
    axes.set_yticks([])


def side_note(axes: Axes, text: str) -> None:
    """Grey text at the right end of the line of the panel's title."""
    axes.annotate(
        text,
        (1, 1),
        xycoords="axes fraction",
        xytext=(0, 6),
        textcoords="offset points",
        ha="right",
        va="baseline",
        size=8,
        color="#5B626B",
    )


def time_unit(span_s: float) -> tuple[float, str]:
    """(seconds in one unit, name) so that a span reads as a number below a few hundred."""
    if span_s <= 600:
        return 1.0, "s"
    return (60.0, "min") if span_s <= 3 * 3600 else (3600.0, "h")


def latency_unit(typical_s: float) -> tuple[float, str]:
    """(factor, name): milliseconds where a typical value is below 0.5 s, seconds elsewhere."""
    return (1e3, "ms") if typical_s < 0.5 else (1.0, "s")


def compact(value: float) -> str:
    """Three significant digits with k and M: 0.012, 1.5, 980, 12.3k, 4.56M."""
    size = abs(value)
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return compact(value / (1e3 if suffix == "k" else limit)) + suffix
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3g}"


def tidy(axes: Axes, *, xbins: int = 6, ybins: int = 5) -> None:
    """Few ticks with compact numbers on linear axes; zero at the bottom is left to the caller."""
    tidy_x(axes, xbins)
    _few_ticks(axes.yaxis, ybins)


def tidy_x(axes: Axes, bins: int) -> None:
    """``tidy`` for the horizontal axis alone."""
    _few_ticks(axes.xaxis, bins)


def whole_ticks(axis: Axis, bins: int = 4) -> None:
    """``tidy`` for one axis that counts something: ticks at whole numbers only."""
    _few_ticks(axis, bins, integer=True)


def _few_ticks(axis: Axis, bins: int, *, integer: bool = False) -> None:
    if axis.get_scale() == "linear":
        axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10], integer=integer))
        axis.set_major_formatter(FuncFormatter(lambda v, _: _tick(v, axis)))


def _tick(value: float, axis: Axis) -> str:
    """Tick labels of one axis share their suffix: 5k, 10k, 15k."""
    low, high = axis.get_view_interval()
    if 1e4 <= max(abs(low), abs(high)) < 1e6 and value:
        return f"{value / 1e3:.4g}k"
    return compact(round(value, 12))


def log_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Log scale from ``low`` to ``high`` with plain numbers: 0.1, 1, 10, and more where few."""
    low, high = max(low, 1e-9), max(high, low * 1.01, 1e-9)
    getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"set_{which}lim")(low, high)
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(FixedLocator(_log_ticks(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: compact(v)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a log axis: powers of ten, or as much finer as it takes to have three."""
    decades = np.log10(high / low)
    first = 0 if decades > 2.5 else 1 if decades > 1.2 else 2
    for subs in LOG_STEPS[first:]:
        ticks = LogLocator(subs=subs).tick_values(low, high)
        inside = [float(tick) for tick in ticks if low <= tick <= high]
        if len(inside) >= FEWEST_TICKS:
            return inside
    # so short a piece of a log axis is almost linear
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]


def wants_log(values: np.ndarray) -> bool:
    """Whether positive values spread so far that a linear axis would hide most of them."""
    positive = values[values > 0]
    if len(positive) < 2:
        return False
    low, most, high = np.percentile(positive, [5, 95, 99.5])
    return bool(high > 30 * low or positive.max() > 10 * most)


def series_colours(labels: Sequence[str]) -> list[str]:
    """One colour a label, the same for the same position in every chart."""
    if len(labels) <= len(SERIES):
        return list(SERIES[: len(labels)])
    ramp = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.92, len(labels)))
    return [matplotlib.colors.to_hex(c) for c in ramp]


def row_colours(labels: Sequence[str]) -> list[str]:
    """``series_colours`` while they can be told apart; one colour for rows that bear their name."""
    return series_colours(labels) if len(labels) <= len(SERIES) else [BLUE] * len(labels)


def wrapped(label: str, width: int = 34, lines: int = 3) -> str:
    """A label on at most ``lines`` lines, cut with an ellipsis where it is longer still."""
    parts = textwrap.wrap(label, width, break_on_hyphens=False) or [""]
    if len(parts) > lines:
        parts = [*parts[: lines - 1], parts[lines - 1][: width - 1].rstrip(" ,") + "…"]
    return "\n".join(parts)
