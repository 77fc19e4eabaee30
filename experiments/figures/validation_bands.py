"""Measured values against the bands of their simulations.

Knows the cases of a validation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.figures import style

PANELS = {
    "ttft_s_mean": "TTFT mean",
    "tpot_s_mean": "TPOT mean",
    "e2e_s_p99": "E2E p99",
    "output_tokens_per_s": "throughput",
}


@style.styled
def validation_bands(cases: Sequence[Mapping[str, Any]], level: float) -> Figure:
    """For every run: the band around the simulated number (0), and what was measured."""
    rows = len(cases)
    title = f"{100 * level:.0f} % bands around the simulated number (0), and what was measured"
    figure, axes = style.panels(
        title, 1, len(PANELS), height=1.3 + 0.17 * rows, left=2.1, wspace=0.2, sharey=True
    )
    places = np.arange(rows)[::-1]
    for ax, (name, heading) in zip(axes.flat, PANELS.items(), strict=True):
        ax.set_title(heading)
        ax.axvline(0, color=style.GREY, lw=0.8)
        for place, case in zip(places.tolist(), cases, strict=True):
            band = case["bands"].get(name)
            predicted = case["simulator"].get(name)
            if band is None or not predicted:
                continue
            low, high, value = (
                100 * (band[key] / predicted - 1) for key in ("low", "high", "measured")
            )
            ax.plot([low, high], [place, place], color=style.SKY, lw=5, solid_capstyle="butt")
            colour = style.INK if band["inside"] else style.VERMILLION
            ax.plot([value], [place], "o", ms=3.5, mew=0, color=colour)
        style.tidy(ax, xbins=3)
        ax.set_xlabel("%")
        ax.set_ylim(-0.8, rows - 0.2)
    axes[0, 0].set_yticks(places)
    axes[0, 0].set_yticklabels(
        [f"{case['policy'].replace('_', ' ')}, load {case['load']:g}" for case in cases]
    )
    return figure
