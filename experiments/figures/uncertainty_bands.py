"""Latency distributions of one run with errors drawn: the band that they fill.

Knows request columns.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import style
from experiments.prediction_interval import prediction_interval
from workbench.metrics import RequestColumns

PANELS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}
SHARES = np.linspace(0.005, 0.995, 199)


@style.styled
def latency_bands(runs: Sequence[RequestColumns], level: float) -> Figure:
    """Bands of the distributions of TTFT, TPOT and E2E; the line is the middle run."""
    note = f"{100 * level:.3g} % bands from {len(runs)} simulations with errors drawn"
    figure, axes = style.panels("How sure the latencies are", 1, 3, height=3.0, note=note)
    for ax, (name, heading) in zip(axes.flat, PANELS.items(), strict=True):
        ax.set_title(heading)
        _band(ax, [getattr(run, name) for run in runs], level)
    axes[0, 0].set_ylabel("share of requests (%)")
    return figure


def _band(ax: Axes, runs: Sequence[np.ndarray], level: float) -> None:
    known = [run[~np.isnan(run)] for run in runs]
    if not known or any(not len(run) for run in known):
        style.no_data(ax)
        return
    curves = np.array([np.quantile(run, SHARES) for run in known])
    low, high = prediction_interval(curves, level)
    middle = np.median(curves, axis=0)
    factor, unit = style.latency_unit(float(np.median(middle)))
    shares = 100 * SHARES
    ax.fill_betweenx(shares, low * factor, high * factor, color=style.SKY, alpha=0.5, lw=0)
    ax.plot(middle * factor, shares, color=style.BLUE)
    if style.wants_log(np.concatenate([low, high])):
        positive = low[low > 0]
        start = float(positive.min()) if len(positive) else float(high.min())
        style.log_axis(ax, "x", start * factor * 0.9, float(high.max()) * factor * 1.05)
    else:
        ax.set_xlim(0, float(high.max()) * factor * 1.05)
    ax.set_ylim(0, 103)
    style.tidy(ax, xbins=4)
    ax.set_xlabel(unit)
