"""What a validation against a live server leaves: tables, charts, one page.

Knows results and goals; how anything was measured is known elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from experiments.calibration_report import price_table, residual_table
from experiments.errors import request_latencies
from experiments.figures import side_by_side
from experiments.figures.style import save
from experiments.live_vllm.calibrate import LiveCalibration
from experiments.live_vllm.compare import LoadResult
from experiments.live_vllm.step_figure import step_errors
from experiments.report.page import NOTHING, Chart, Headline, Section, Table, write_page

CHARTS = "charts"
# error, its name, and what it is to be at every load
GOALS = (
    ("output_tokens_per_s_error", "throughput", 0.03),
    ("tpot_mean_error", "mean TPOT", 0.03),
    ("ttft_mean_error", "mean TTFT", 0.05),
    ("e2e_mean_error", "mean E2E", 0.05),
)
NAMES = ("vLLM", "simulated")
PERCENTILES = ("p50", "p90", "p99")


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a validation has found.

    Attributes:
        loads: In the order in which they were run.
        calibration: What they were simulated with.
        capacity: Requests a second that the server can do, simulated.
        log_agrees: Share of steps of which vLLM's own log says what the recorder noted.
        facts: Of the machine, the server and the run.
    """

    loads: Sequence[LoadResult]
    calibration: LiveCalibration
    capacity: float
    log_agrees: float | None
    facts: Mapping[str, Any]


def is_met(result: LoadResult) -> bool:
    """Whether a load meets every goal, the machine's pace not known."""
    return _is_within(result.errors)


def _is_within(errors: Mapping[str, float]) -> bool:
    return all(abs(errors[key]) <= goal for key, _, goal in GOALS)


def write_report(folder: Path, findings: Findings, command: str) -> None:
    """Charts and report.html."""
    charts = folder / CHARTS
    charts.mkdir(parents=True, exist_ok=True)
    is_probed = all(result.is_probed for result in findings.loads)
    sections = [
        Section("Goals", tables=[goal_table(findings.loads)], text=_how_to_read(is_probed)),
        *(_load_section(charts, result) for result in findings.loads),
        _decision_section(findings),
        _calibration_section(charts, findings.calibration),
    ]
    write_page(
        folder / "report.html",
        "Simulator against a live vLLM server",
        sections,
        [command],
        findings.facts,
        headlines=_headlines(findings),
    )


def _headlines(findings: Findings) -> list[Headline]:
    worst = {
        name: max((result.errors[key] for result in findings.loads), key=abs)
        for key, name, _ in GOALS
    }
    steps = sum(result.num_steps for result in findings.loads)
    equal = sum(result.num_equal for result in findings.loads)
    alike = Headline("steps decided alike", f"{100 * equal / max(steps, 1):.4g} %", f"of {steps}")
    return [Headline(name, percent(error), "worst load") for name, error in worst.items()] + [alike]


def percent(error: float) -> str:
    """A signed error."""
    return f"{100 * error:+.2f} %" if np.isfinite(error) else NOTHING


def goal_table(loads: Sequence[LoadResult]) -> Table:
    """Errors of the four goals at each load."""
    rows = [
        [f"{name} (goal ±{100 * goal:.0f} %)", *(percent(r.errors[key]) for r in loads)]
        for key, name, goal in GOALS
    ]
    rows.append(["all four met", *(_yes(is_met(result)) for result in loads)])
    rows += [
        [f"{name}, at the machine's pace", *(percent(r.errors_at_its_pace[key]) for r in loads)]
        for key, name, _ in GOALS
    ]
    at_its_pace = (_yes(_is_within(result.errors_at_its_pace)) for result in loads)
    rows.append(["all four met, at the machine's pace", *at_its_pace])
    caption = "Simulated over measured, minus 1"
    return Table(caption, ("error of", *(_title(result) for result in loads)), rows)


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _title(result: LoadResult) -> str:
    return f"{result.name}, {result.rate:.2f} requests/s"


def _how_to_read(is_probed: bool) -> str:
    told_by = (
        "A small piece of fixed work, timed ten times a second in the server's worker, told that;"
        " nothing of the run is in it."
        if is_probed
        else "How much longer than predicted the server's own steps took told that, so it is no"
        " prediction."
    )
    return (
        "The server is real and served the requests in real time; the simulator replayed the"
        " moments at which the client sent them. Times are the client's on both sides: the"
        " simulated ones have the delays of HTTP and of streaming added that were measured in the"
        " calibration, on other requests. Steps scatter in the simulations as they did in the"
        " calibration; errors are means over several draws of that, charts show one."
        "\n\nAt the machine's pace: a second simulation, in which every step is scaled by how fast"
        f" the machine was in that second. {told_by} It tells a machine that was faster or slower"
        " than during the calibration from everything else that a simulation can get wrong."
    )


def _load_section(charts: Path, result: LoadResult) -> Section:
    measured, simulated, name = result.measured, result.simulated, result.name
    requests = measured.requests, simulated.requests
    timelines = [side_by_side.timeline_of(s.requests, s.steps) for s in (measured, simulated)]
    words = NAMES
    figures = {
        "timeline": side_by_side.timelines(
            timelines[0], timelines[1], words, f"{name.capitalize()}: the run over time"
        ),
        "cdf": side_by_side.latency_cdfs(*requests, words, f"{name.capitalize()}: latencies"),
        "scatter": side_by_side.request_scatter(
            *requests, f"{name.capitalize()}: request by request"
        ),
    }
    for name, figure in figures.items():
        save(figure, charts / f"{result.name}_{name}.png")
    return Section(
        f"Load: {result.name}",
        tables=[latency_table(result)],
        charts=[
            Chart("Requests and tokens over time", charts / f"{result.name}_timeline.png"),
            Chart("Distributions over each other", charts / f"{result.name}_cdf.png"),
            Chart("Each request in both worlds", charts / f"{result.name}_scatter.png"),
        ],
    )


def latency_table(result: LoadResult) -> Table:
    """Latencies of both worlds, and throughput; the simulated ones are means over all draws."""
    sides = [side.requests for side in (result.measured, *result.draws)]
    latencies = [request_latencies(side) for side in sides]
    rows: list[list[Any]] = []
    for name in ("ttft", "tpot", "e2e"):
        for statistic in ("mean", *PERCENTILES):
            measured, *drawn = (1e3 * _statistic(side[name], statistic) for side in latencies)
            error = percent(result.errors[f"{name}_{statistic}_error"])
            rows.append([f"{name.upper()} {statistic}, ms", measured, fmean(drawn), error])
    measured, *drawn = map(_throughput, sides)
    error = percent(result.errors["output_tokens_per_s_error"])
    rows.append(["output tokens/s", measured, fmean(drawn), error])
    each = f"{100 * result.errors['e2e_mape']:.2f} %"
    rows.append(["E2E of a request, mean absolute error", None, None, each])
    return Table(_title(result), ("", "measured", "simulated", "error"), rows)


def _statistic(values: pd.Series, name: str) -> float:
    known = values.dropna().to_numpy(dtype=np.float64)
    if not len(known):
        return float("nan")
    return float(known.mean() if name == "mean" else np.percentile(known, float(name[1:])))


def _throughput(requests: pd.DataFrame) -> float:
    span = float(requests["finish_s"].max() - requests["arrival_s"].min())
    return float(requests["output_tokens"].sum()) / span


def _decision_section(findings: Findings) -> Section:
    columns = ("", *(result.name for result in findings.loads))
    sides = [(result.measured, result.simulated) for result in findings.loads]
    rows = [
        ["steps of the server", *(r.num_steps for r in findings.loads)],
        ["decided alike in the workbench", *(r.num_equal for r in findings.loads)],
        ["steps of the simulation", *(len(s.steps) for _, s in sides)],
        ["tokens a step, measured", *(_mean(m.steps, "scheduled_tokens") for m, _ in sides)],
        ["tokens a step, simulated", *(_mean(s.steps, "scheduled_tokens") for _, s in sides)],
        ["preemptions, measured", *(m.counters["preemptions"] for m, _ in sides)],
        ["preemptions, simulated", *(s.counters["preemptions"] for _, s in sides)],
        ["prefix hits, tokens, measured", *(m.counters["prefix_hit_tokens"] for m, _ in sides)],
        ["prefix hits, tokens, simulated", *(s.counters["prefix_hit_tokens"] for _, s in sides)],
    ]
    text = (
        "A recorder inside the server notes every call of its scheduler and what it decided: which"
        " requests came before which step, the rows of each step with their tokens computed before"
        " and now, preemptions, waiting requests, free blocks. The workbench's scheduler gets the"
        " same calls in the same order, and must decide the same. The simulation of the load"
        " decides on its own, with predicted times."
    )
    found = [r.difference for r in findings.loads if r.difference is not None]
    if found:
        text += f"\n\nFirst difference: {found[0]}."
    if findings.log_agrees is not None:
        share = f"{100 * findings.log_agrees:.4g} %"
        text += f"\n\nvLLM's own log of its iterations says the same as the recorder in {share}."
    return Section("Decisions", text, [Table("Steps", columns, rows)])


def _mean(frame: pd.DataFrame, column: str) -> float:
    return float(frame[column].mean()) if len(frame) else float("nan")


def _calibration_section(charts: Path, calibration: LiveCalibration) -> Section:
    steps = calibration.steps
    even = [steps.pace.at_typical(step) for step in calibration.measured]
    save(step_errors(steps, even), charts / "calibration.png")
    at_pace = ", at the machine's typical pace" if steps.pace.is_known else ""
    front = Table(
        "Delays beside the engine",
        ("delay", "value"),
        [
            ["before the engine, a request, ms", 1e3 * calibration.front_end.request_s],
            ["before the engine, a prompt token, µs", 1e6 * calibration.front_end.prompt_token_s],
            ["after a step, a token, ms", 1e3 * calibration.front_end.step_s],
            ["after a step, every token of the step, ms", 1e3 * calibration.front_end.output_s],
        ],
    )
    text = (
        f"Fitted to {len(calibration.measured)} steps of designed runs: requests alone, equal"
        " requests together, bursts and trickles of random lengths. None of them is part of a load"
        " above."
    )
    return Section(
        "Calibration",
        text,
        [residual_table(steps), price_table(steps), front],
        [Chart(f"Measured over fitted time of every step{at_pace}", charts / "calibration.png")],
    )
