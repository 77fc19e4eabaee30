"""Legends outside the axes, and how wide text will be.

Knows matplotlib figures with a title and perhaps a note as their texts (as ``style.panels`` makes
them). A legend never covers data: it goes beside the title, below it, or right of the axes, and
the figure grows by what it needs.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from experiments.figures.style import wrapped


def series_legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Legend of the series of a comparison, outside the axes wherever it fits.

    On the line of the title, else in a row below it, else in a column right of the axes. The
    figure grows by what the legend needs; the axes keep their size.
    """
    width = figure.get_size_inches()[0]
    row = sum(text_inches([label], 8) + 0.42 for label in labels) + 0.3
    title = max((text_inches([t.get_text()], 11.5) for t in figure.texts[:1]), default=0.0)
    if row + title < width:
        legend_above(figure, handles, labels)
    elif row < width:
        _grow(figure, top=0.2)
        figure.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(figure.subplotpars.left, _panel_top(figure, 0.26)),
            ncols=len(labels),
        )
    else:
        _legend_beside(figure, handles, labels)


def legend_above(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Legend in one row at the top right, on the line of the title."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles,
        labels,
        loc="upper right",
        bbox_to_anchor=(1 - 0.14 / width, 1 - 0.1 / height),
        ncols=max(len(labels), 1),
    )


def _legend_beside(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    texts = [wrapped(label) for label in labels]
    before, height = figure.get_size_inches()
    lines = sum(t.count("\n") + 1 for t in texts)
    missing = max(0.17 * lines + 0.08 * len(texts) + 0.7 - height, 0.0)
    _grow(figure, right=text_inches(texts, 8) + 0.42, bottom=missing)
    width = figure.get_size_inches()[0]
    figure.legend(
        handles,
        texts,
        loc="upper left",
        bbox_to_anchor=((before - 0.02) / width, _panel_top(figure)),
        labelspacing=0.6,
    )


def _panel_top(figure: Figure, above: float = 0.0) -> float:
    """Height of the upper edge of the panels, plus ``above`` inches, as a share of the figure."""
    return figure.subplotpars.top + above / figure.get_size_inches()[1]


def _grow(figure: Figure, right: float = 0.0, top: float = 0.0, bottom: float = 0.0) -> None:
    """Add inches at the edges; panels, title and note keep their size and their distances."""
    width, height = figure.get_size_inches()
    pars = figure.subplotpars
    wide, tall = width + right, height + top + bottom
    figure.set_size_inches(wide, tall)
    figure.subplots_adjust(
        left=pars.left * width / wide,
        right=pars.right * width / wide,
        top=(pars.top * height + bottom) / tall,
        bottom=(pars.bottom * height + bottom) / tall,
    )
    for text in figure.texts:
        x, y = text.get_position()
        text.set_position((x * width / wide, 1 - (1 - y) * height / tall))


def text_inches(labels: Iterable[str], size: float) -> float:
    """Width of the widest line of these labels in inches."""
    lines = [line for label in labels for line in label.split("\n")]
    if not lines:
        return 0.0
    canvas = FigureCanvasAgg(Figure(dpi=72))
    font = FontProperties(size=size)
    renderer = canvas.get_renderer()
    return max(renderer.get_text_width_height_descent(t, font, False)[0] for t in lines) / 72
