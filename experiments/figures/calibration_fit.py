"""Charts of a calibration: how far its prices are from the steps that were measured.

Knows calibrations and measured steps.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import sampling, style
from simulator.calibration import Calibration
from workbench.step_profile import MeasuredStep

GRID = "grid"
POINTS = 4000
WINDOW = 25  # steps of a moving median
WIDEST = 0.6  # of an axis of relative errors
KINDS = (
    ("decodes only", style.BLUE),
    ("prompt chunks only", style.VERMILLION),
    ("both", style.GREEN),
)


@style.styled
def calibration_fit(calibration: Calibration, steps: Sequence[MeasuredStep]) -> Figure:
    """Measured / fitted - 1 of every step, over its tokens: the grid, and recorded runs."""
    figure, axes = style.panels("Measured against fitted step times", 1, 2, height=3.1, top=0.85)
    parts = (
        ("timed alone", [s for s in steps if s.source.startswith(GRID)]),
        ("recorded while serving", [s for s in steps if not s.source.startswith(GRID)]),
    )
    for ax, (name, some) in zip(axes.flat, parts, strict=True):
        ax.set_title(name)
        if not some:
            style.no_data(ax)
            continue
        _errors(ax, calibration, some, is_alone=name == "timed alone")
    axes[0, 0].set_ylabel("measured / fitted - 1 (%)")
    _kinds_legend(figure)
    return figure


def _errors(
    ax: Axes, calibration: Calibration, steps: Sequence[MeasuredStep], is_alone: bool
) -> None:
    ratio = ratios(calibration, steps, is_alone) - 1
    tokens = np.array([s.shape.num_tokens for s in steps], dtype=np.float64)
    kinds = np.array([_kind(s) for s in steps])
    kept = np.asarray(sampling.thin(len(steps), POINTS))
    for number, (_, colour) in enumerate(KINDS):
        mine = kept[kinds[kept] == number]
        ax.plot(tokens[mine], 100 * ratio[mine], ".", ms=3, mew=0, alpha=0.6, color=colour)
    ax.axhline(0, color=style.INK, lw=0.8)
    bound = 100 * min(max(float(np.quantile(np.abs(ratio), 0.99)) * 1.2, 0.05), WIDEST)
    ax.set_ylim(-bound, bound)
    style.log_axis(ax, "x", 0.9, float(tokens.max()) * 1.1)
    style.tidy(ax, xbins=5)
    style.log_axis(ax, "x", 0.9, float(tokens.max()) * 1.1)
    ax.set_xlabel("tokens of the step")


def _kinds_legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    from experiments.figures import legend

    handles = [Line2D([], [], marker=".", ls="", ms=7, color=colour) for _, colour in KINDS]
    legend.legend_above(figure, handles, [name for name, _ in KINDS])


def _kind(step: MeasuredStep) -> int:
    if not step.shape.prefills:
        return 0
    return 2 if step.shape.num_decodes else 1


def ratios(
    calibration: Calibration, steps: Sequence[MeasuredStep], is_alone: bool = False
) -> np.ndarray:
    """Measured over typical time of steps; those timed alone have no host's share."""
    price = calibration.device if is_alone else calibration.typical_s
    return np.array([step.seconds / max(price(step.shape), 1e-12) for step in steps])


@style.styled
def jitter_of_runs(calibration: Calibration, steps: Sequence[MeasuredStep]) -> Figure:
    """Measured / fitted - 1 of recorded steps in the order of time, and its moving median."""
    figure, axes = style.panels("Recorded runs, one after the other", 1, 1, height=2.6)
    ax = axes[0, 0]
    runs = [s for s in steps if not s.source.startswith(GRID)]
    if not runs:
        style.no_data(ax)
        return figure
    error = 100 * (ratios(calibration, runs) - 1)
    kept = np.asarray(sampling.thin(len(runs), POINTS))
    ax.plot(kept, error[kept], ".", ms=2, mew=0, color=style.SKY)
    sources = np.array([s.source for s in runs])
    for source in dict.fromkeys(sources.tolist()):
        mine = np.flatnonzero(sources == source)
        middle = [float(np.median(error[i : i + WINDOW])) for i in mine[: -WINDOW or None]]
        ax.plot(mine[: len(middle)] + WINDOW / 2, middle, color=style.VERMILLION, lw=1.2)
        ax.axvline(mine[0], color=style.GREY, lw=0.6)
    ax.axhline(0, color=style.INK, lw=0.8)
    bound = 100 * min(max(float(np.quantile(np.abs(error), 0.99)) / 100 * 1.2, 0.05), WIDEST)
    ax.set_ylim(-bound, bound)
    ax.set_xlim(0, len(runs))
    style.tidy(ax, xbins=8)
    ax.set_xlabel("step")
    ax.set_ylabel("measured / fitted - 1 (%)")
    return figure
