"""Measured over fitted step times of designed runs, a panel for each kind of step."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.figures import style
from simulator.calibration import Calibration
from workbench.step_profile import MeasuredStep, StepShape

LIMIT = 45.0  # %, either way; what lies outside is drawn at the edge
PANELS = ("decodes only", "with prompt chunks")


@style.styled
def step_errors(calibration: Calibration, steps: Sequence[MeasuredStep]) -> Figure:
    """Relative error of every step over its tokens."""
    figure, axes = style.panels("Measured over fitted step times", 1, 2, height=2.8)
    for ax, title, with_chunks in zip(axes.flat, PANELS, (False, True), strict=True):
        ax.set_title(title)
        chosen = [step for step in steps if bool(step.shape.prefills) is with_chunks]
        if not chosen:
            style.no_data(ax)
            continue
        tokens = [_size(step.shape, with_chunks) for step in chosen]
        ratios = [step.seconds / calibration.mean_s(step.shape) for step in chosen]
        errors = np.clip(100 * (np.array(ratios) - 1), -LIMIT, LIMIT)
        ax.axhline(0, color=style.INK, lw=0.8)
        ax.plot(tokens, errors, ".", color=style.BLUE, ms=3.5, mew=0, alpha=0.6)
        ax.set_ylim(-LIMIT * 1.05, LIMIT * 1.05)
        ax.set_xlim(left=0)
        style.tidy(ax, xbins=6, ybins=5)
        ax.set_xlabel("tokens of the step" if with_chunks else "rows of the step")
    axes[0, 0].set_ylabel("measured / fitted - 1 (%)")
    return figure


def _size(shape: StepShape, with_chunks: bool) -> int:
    return shape.num_tokens if with_chunks else shape.num_requests
