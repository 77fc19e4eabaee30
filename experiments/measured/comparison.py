"""One measured run against its simulation: errors, charts and a page in a folder.

Knows what is written where. How a run is read, priced and replayed, the files beside this one know.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import LATENCIES, latency_errors, request_latencies
from experiments.figures import side_by_side
from experiments.figures.style import save
from experiments.measured.outcome import STATISTICS, fitted_constants, percent, terminal_table
from experiments.measured.prices import Prices, prices_of
from experiments.measured.replay import Replayed, replay
from experiments.measured.run_files import MeasuredRun, read_measured
from experiments.measured.settings import MeasuredSettings
from experiments.measured.system import System, system_of
from experiments.measured.workload import workload_of
from experiments.report.page import Chart, Headline, Section, Table, write_page
from experiments.run_folder import CHARTS, write_json
from experiments.tables import json_safe
from workbench.errors import ConfigError

ERRORS, REPORT, PER_REQUEST = "errors.json", "report.html", "requests.csv"
HOW = """\
The requests that were sent to the server were sent to the simulated one when they reached the \
engine's door, with the same lengths and the same shared blocks. Limits and parallelism are those \
that the server was started with. Nothing is fitted here; the few constants are listed below, each \
with the runs that it was fitted on before.

Both clocks of a request start when the engine takes it in, which it does between two steps. An \
error is simulated / measured - 1: positive where the simulation is too slow."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measured run, its simulation and how far they are apart."""

    run: MeasuredRun
    system: System
    prices: Prices
    replayed: Replayed
    errors: dict[str, float]
    means: dict[str, tuple[float, float]]
    wall_s: float


def compare(settings: MeasuredSettings) -> Comparison:
    """Replay a measured run.

    Raises:
        ConfigError: A file is missing or is not what it should be.
    """
    started = time.perf_counter()
    run = read_measured(Path(settings.measured))
    system = system_of(run, settings.model, settings.hardware)
    prices = prices_of(system, settings.profile, Path(settings.profiles_dir), settings.launch_gap_s)
    workload = workload_of(run, Path(settings.requests))
    replayed = replay(run, system, prices, workload)
    errors = latency_errors(run.requests, replayed.requests)
    _check_served(run, replayed, settings)
    means = _means(run.requests, replayed.requests)
    wall_s = time.perf_counter() - started
    return Comparison(run, system, prices, replayed, errors, means, wall_s)


def _check_served(run: MeasuredRun, replayed: Replayed, settings: MeasuredSettings) -> None:
    """Refuse a simulation that cut requests short: its limits are not those of the server."""
    answers = replayed.requests.set_index("request_id")["output_tokens"]
    measured = run.requests.set_index("request_id")["output_tokens"]
    short = int((answers.reindex(measured.index).fillna(0) < measured).sum())
    if short:
        raise ConfigError(
            f"{settings.measured}: {short} requests were served and cannot be in the simulation:"
            " their lengths exceed its limits (max_model_len, KV blocks); check meta.json"
        )


def _means(measured: pd.DataFrame, simulated: pd.DataFrame) -> dict[str, tuple[float, float]]:
    sides = [request_latencies(side.drop(columns="itl_s", errors="ignore")).mean()
             for side in (measured, simulated)]  # fmt: skip
    return {name: (float(sides[0][name]), float(sides[1][name])) for name in LATENCIES}


def facts_of(comparison: Comparison, settings: MeasuredSettings) -> dict[str, Any]:
    """The content of errors.json."""
    prices = comparison.prices
    return {
        **comparison.errors,
        "fitted_constants": fitted_constants(comparison.system, prices, settings.launch_gap_s),
        "prices_from": prices.source,
        "uneven_rows": prices.uneven_rows,
        "system": comparison.system.facts,
        "requests_failed": comparison.run.num_failed,
        "simulation_seconds": round(comparison.replayed.seconds, 3),
        "wall_seconds": round(comparison.wall_s, 3),
        **comparison.replayed.counters,
    }


def write_comparison(
    comparison: Comparison, settings: MeasuredSettings, folder: Path, command: str
) -> None:
    """Write charts, the table of requests, errors.json and, last, the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (ERRORS, REPORT):
        (folder / name).unlink(missing_ok=True)
    charts = _write_charts(comparison, folder / CHARTS)
    _per_request(comparison).to_csv(folder / PER_REQUEST, index=False, float_format="%.6f")
    facts = json_safe(facts_of(comparison, settings))
    write_json(folder / ERRORS, facts)
    _write_page(comparison, facts, charts, folder / REPORT, command)


def told(comparison: Comparison) -> str:
    """The table for the terminal."""
    system, prices = comparison.system, comparison.prices
    head = f"{system.model.name} on {system.hardware.name}, prices from {prices.source}"
    tail = f"  simulated in {comparison.replayed.seconds:.2f} s"
    return "\n".join([head, terminal_table(comparison.errors, comparison.means), tail])


def _write_charts(comparison: Comparison, folder: Path) -> list[tuple[str, Path]]:
    folder.mkdir(parents=True, exist_ok=True)
    measured, simulated = comparison.run.requests, comparison.replayed.requests
    blocks = [comparison.system.num_blocks] * comparison.system.replicas
    figures = {}
    if comparison.run.timeline is not None:
        timeline = side_by_side.timeline_of(simulated, comparison.replayed.steps, blocks)
        title = "Running and waiting requests, KV cache and throughput over time"
        figures[title] = ("timelines", side_by_side.timelines(comparison.run.timeline, timeline))
    figures["Distributions of the latencies"] = (
        "latency_cdfs", side_by_side.latency_cdfs(measured, simulated)
    )  # fmt: skip
    figures["Each request, simulated against measured"] = (
        "requests", side_by_side.request_scatter(measured, simulated)
    )  # fmt: skip
    charts = []
    for title, (name, figure) in figures.items():
        save(figure, folder / f"{name}.png")
        charts.append((title, folder / f"{name}.png"))
    return charts


def _per_request(comparison: Comparison) -> pd.DataFrame:
    """A line a request: measured and simulated latencies, in seconds."""
    sides = []
    for side in (comparison.run.requests, comparison.replayed.requests):
        rows = side.set_index("request_id").drop(columns="itl_s", errors="ignore")
        sides.append(request_latencies(rows))
    named = [side.add_suffix(f"_{n}") for side, n in zip(sides, side_by_side.NAMES, strict=True)]
    return named[0].join(named[1]).reset_index()


def _write_page(
    comparison: Comparison,
    facts: dict[str, Any],
    charts: list[tuple[str, Path]],
    path: Path,
    command: str,
) -> None:
    errors = comparison.errors
    system = comparison.system
    pictures = [Chart(title, file) for title, file in charts]
    write_page(
        path,
        f"{system.model.name} on {system.hardware.name}: measured and simulated",
        [
            Section("Errors", HOW, [_error_table(comparison)]),
            Section("Side by side", charts=pictures),
            Section(
                "What was fitted, and on what",
                "Constants of the GPU, the same for every run on it.",
                [_constants_table(facts["fitted_constants"])],
            ),
        ],
        commands=[command],
        facts=system.facts | comparison.prices.files | comparison.replayed.counters,
        headlines=[
            Headline("E2E, MAPE", percent(errors["e2e_mape"], signed=False), "over requests"),
            Headline("TTFT, mean", percent(errors["ttft_mean_error"])),
            Headline("TPOT, mean", percent(errors["tpot_mean_error"])),
            Headline("Simulated in", f"{comparison.replayed.seconds:.2f} s"),
        ],
    )


def _error_table(comparison: Comparison) -> Table:
    errors = comparison.errors
    rows = [
        [label, *(percent(errors[f"{name}_{key}_error"]) for name in LATENCIES)]
        for label, key in STATISTICS
    ]
    rows.append(["MAPE", *(percent(errors[f"{n}_mape"], signed=False) for n in LATENCIES)])
    rows += [
        [side, *(f"{comparison.means[n][place]:.4g} s" for n in LATENCIES)]
        for side, place in (("measured, mean", 0), ("simulated, mean", 1))
    ]
    return Table("Error of the simulation", ["", "TTFT", "TPOT", "E2E"], rows)


def _constants_table(constants: dict[str, dict[str, Any]]) -> Table:
    rows = [[name, entry["value"], entry["fitted_on"]] for name, entry in constants.items()]
    return Table("Constants", ["constant", "value", "fitted on"], rows)
