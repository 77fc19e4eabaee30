"""What a calibration found, as a page: prices, residuals, how steps scatter.

Knows a calibration and the steps that it was fitted to.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from simulator.calibration import Calibration
from simulator.calibration.jitter import Jitter
from simulator.calibration.terms import COUNTS
from workbench.step_profile import MeasuredStep

CHARTS = "charts"
LONG = 100  # steps
MEANING = {
    "step": "every step",
    "decoding": "a step in which rows decode",
    "mixed": "a step with prompt chunks besides",
    "decodes": "a row that decodes",
    "decode_context": "a key that decodes read",
    "distinct_context": "a key that decodes read, once for all that share it",
    "chunks": "a prompt chunk",
    "chunk_pairs": "a query and a key of a chunk",
    "chunk_context": "a key that chunks read",
    "samples": "a row of logits",
    "swap_blocks": "a KV block copied",
}
CURVES = {
    "tokens": "a token",
    "decode_padding": "a key by which a decode is shorter than the longest",
    "cold": "a prompt token of the step before one that only decodes",
}


def write_calibration_report(
    folder: Path, calibration: Calibration, steps: Sequence[MeasuredStep], argv: Sequence[str]
) -> None:
    """Write report.html and its charts into the folder."""
    from experiments.figures.calibration_fit import calibration_fit, jitter_of_runs
    from experiments.figures.style import save
    from experiments.report.page import Chart, Section, write_page

    charts = folder / CHARTS
    charts.mkdir(exist_ok=True)
    even = [calibration.pace.at_typical(step) for step in steps]
    save(calibration_fit(calibration, even), charts / "fit.png")
    save(jitter_of_runs(calibration, steps), charts / "jitter.png")
    write_page(
        folder / "report.html",
        f"Calibration of {calibration.facts.get('model', {}).get('name', 'a model')}",
        [
            Section("How good it is", tables=[residual_table(calibration)], charts=[
                Chart("Measured over fitted time of every step, at the machine's typical pace",
                      charts / "fit.png"),
            ]),
            Section("How steps scatter", text=_jitter_text(calibration), charts=[
                Chart("Recorded steps in the order of time", charts / "jitter.png"),
            ]),
            Section("What a step is made of", tables=[price_table(calibration)]),
        ],
        [str(calibration.facts.get("command", " ".join(argv)))],
        {name: _plain(value) for name, value in calibration.facts.items()},
    )  # fmt: skip


def residual_table(calibration: Calibration) -> Any:
    """Errors in and out of sample."""
    from experiments.report.page import Table

    rows = []
    for kind, both in calibration.residuals.items():
        for name, told in both.items():
            if told.get("steps"):
                errors = [
                    f"{100 * told[key]:.1f} %"
                    for key in ("mean_error", "mean_absolute_error", "p90_absolute_error")
                ]
                rows.append([f"{kind}, {name.replace('_', ' ')}", told["steps"], *errors])
    columns = ("steps", "number", "mean error", "mean absolute error", "90th percentile")
    return Table("Fitted over measured time of single steps", columns, rows)


def price_table(calibration: Calibration) -> Any:
    """Prices of the device and of the host."""
    from experiments.report.page import Table

    rows: list[list[Any]] = [
        [MEANING[name], *(_micro(prices.seconds.get(name)) for prices in _both(calibration))]
        for name in COUNTS
        if any(prices.seconds.get(name) for prices in _both(calibration))
    ]
    for name, curve in calibration.device.curves.items():
        for (low, high), slope in zip(pairwise(curve.nodes), curve.slopes, strict=True):
            rows.append([f"{CURVES[name]}, from {low:g} to {high:g}", _micro(slope), None])
    return Table("Microseconds", ("of", "device", "host"), rows)


def _both(calibration: Calibration) -> tuple[Any, Any]:
    return calibration.device, calibration.host


def _micro(seconds: float | None) -> str | None:
    return None if not seconds else f"{1e6 * seconds:.4g}"


def _jitter_text(calibration: Calibration) -> str:
    jitter = calibration.jitter
    spans = [
        f"between {100 * told[2]:+.1f} % and {100 * told[-4]:+.1f} %"
        for told in (jitter.quantiles, jitter.quantiles_of_prompts)
    ]
    return (
        f"Around the typical step of its run, nine of ten steps that only decode lie {spans[0]},"
        f" and of those with prompts {spans[1]}. Neighbours have a correlation of"
        f" {jitter.autocorrelation(1):.2f}, steps that are {LONG} apart one of"
        f" {jitter.autocorrelation(LONG):.2f}."
        f" The mean step takes {_more(calibration.mean_factor)} than the typical one where it only"
        f" decodes, and {_more(calibration.mean_factor_of_prompts)} with prompts."
        f" {_run_error_text(jitter)}"
    )


def _more(factor: float) -> str:
    return f"{100 * abs(factor - 1):.1f} % {'more' if factor >= 1 else 'less'}"


def _run_error_text(jitter: Jitter) -> str:
    run_sd = jitter.known_run_sd
    if run_sd is None:
        return (
            "How far a whole run is off is not known: it takes two recordings, so that one can be"
            " predicted without itself (calibrate.rounds=2 or more)."
        )
    return (
        f"A whole run is off by {100 * run_sd:.1f} % (root mean square over"
        f" {jitter.num_runs} recordings, each predicted without itself)."
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return value
