"""A table of operating points against its simulation: errors, charts and a page in a folder.

Knows what is written where. How a point is read and simulated, the files beside this one know.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.figures.points import errors_by_users, measured_against_simulated
from experiments.figures.style import save
from experiments.measured.closed_loop import Outcome, simulate_points
from experiments.measured.outcome import HOST_SOURCE, percent
from experiments.measured.points import read_points
from experiments.measured.prices import gpu_of
from experiments.measured.settings import SiliconSettings
from experiments.report.page import Chart, Headline, Section, Table, write_page
from experiments.run_folder import CHARTS, write_json
from experiments.tables import json_safe
from simulator.cost_models.kernel_constants import constants_for

ERRORS, REPORT, POINTS = "errors.json", "report.html", "points.csv"
HOW = """\
Each point is a closed loop: its users start at once, and each sends its next request when its \
last one is answered. Means are over all requests, the start included, as they were measured.

Steps are priced with tables of single kernels of this GPU, and two constants for the host that \
are the same for all points. An error is simulated / measured - 1.

A point is left out of the means if its GPUs cannot have served so many users at the measured \
pace: reading weights, keys and values once would take longer. It stays in the table."""


def compare_points(settings: SiliconSettings, folder: Path, command: str) -> str:
    """Simulate all points and write the results; the lines for the terminal.

    Raises:
        ConfigError: The table cannot be used.
    """
    started = time.perf_counter()
    points = read_points(Path(settings.points))
    outcomes = list(simulate_points(points, settings))
    seconds = time.perf_counter() - started
    folder.mkdir(parents=True, exist_ok=True)
    for name in (ERRORS, REPORT):
        (folder / name).unlink(missing_ok=True)
    table = points_frame(outcomes)
    table.to_csv(folder / POINTS, index=False, float_format="%.4f")
    facts = json_safe(facts_of(outcomes, table, settings) | {"wall_seconds": round(seconds, 1)})
    charts = _write_charts(table, folder / CHARTS)
    write_json(folder / ERRORS, facts)
    _write_page(facts, table, charts, folder / REPORT, command)
    return told(table, seconds)


def points_frame(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """A row a point."""
    return pd.DataFrame(
        {
            "point": o.point.name,
            "group": group_of(o),
            "isl": o.point.isl,
            "osl": o.point.osl,
            "users": o.point.users,
            "ttft_ms": o.point.ttft_ms,
            "ttft_simulated_ms": o.ttft_ms,
            "ttft_error": o.ttft_error,
            "tpot_ms": o.point.tpot_ms,
            "tpot_simulated_ms": o.tpot_ms,
            "tpot_error": o.tpot_error,
            "least_tpot_ms": o.least_tpot_ms,
            "counted": o.is_possible,
        }
        for o in outcomes
    )


def group_of(outcome: Outcome) -> str:
    """Model, precision and tensor parallel size of a point."""
    point = outcome.point
    name = point.model.rpartition("/")[2]
    return f"{name} {point.precision} TP {point.tensor_parallel_size}"


def facts_of(
    outcomes: Sequence[Outcome], table: pd.DataFrame, settings: SiliconSettings
) -> dict[str, Any]:
    """The content of errors.json."""
    constants = {
        name: {"value": getattr(settings, name), "fitted_on": HOST_SOURCE}
        for name in ("host_overhead_s", "host_overhead_per_request_s")
    }
    for system in dict.fromkeys(outcome.point.system for outcome in outcomes):
        gpu = gpu_of(system)
        constants[f"kernel constants of {gpu}"] = {
            "value": None,
            "fitted_on": constants_for(gpu).source + " (simulator/cost_models/kernel_constants.py)",
        }
    return {
        **summary(table),
        "num_points": len(table),
        "num_points_counted": int(table["counted"].sum()),
        **{f"{name}_of_all_points": value for name, value in summary(table, every=True).items()},
        "fitted_constants": constants,
        "prices_from": sorted({outcome.prices_from for outcome in outcomes}),
        "points": table.to_dict("records"),
    }


def summary(table: pd.DataFrame, every: bool = False) -> dict[str, float]:
    """MAPE, medians of the absolute errors and median errors, as fractions.

    Args:
        every: Over all points, those that cannot be as they are told included.
    """
    facts = {}
    counted = table if every or not table["counted"].any() else table[table["counted"]]
    for name in ("ttft", "tpot"):
        errors = counted[f"{name}_error"]
        facts[f"{name}_mape"] = float(errors.abs().mean())
        facts[f"{name}_median_absolute_error"] = float(errors.abs().median())
        facts[f"{name}_median_error"] = float(errors.median())
    return facts


def told(table: pd.DataFrame, seconds: float) -> str:
    """The table for the terminal, a line a group of points: how many are counted, and errors."""
    lines = [
        f"  {'':<28}{'points':>7}{'TTFT MAPE':>11}{'median':>10}{'TPOT MAPE':>11}{'median':>10}"
    ]
    lines += [_line(str(name), rows) for name, rows in table.groupby("group", sort=False)]
    lines.append(_line("all", table))
    left_out = table[~table["counted"]]
    if len(left_out):
        names = ", ".join(left_out["point"])
        lines.append(f"  left out of the means (faster than memory allows): {names}")
    return "\n".join([*lines, f"  simulated in {seconds:.0f} s"])


def _line(name: str, rows: pd.DataFrame) -> str:
    facts = summary(rows)
    cells = (
        percent(facts["ttft_mape"], signed=False),
        percent(facts["ttft_median_error"]),
        percent(facts["tpot_mape"], signed=False),
        percent(facts["tpot_median_error"]),
    )
    widths = (11, 10, 11, 10)
    numbers = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    number = int(rows["counted"].sum()) or len(rows)
    return f"  {name:<28}{number:>7}{numbers}"


def _write_charts(table: pd.DataFrame, folder: Path) -> list[Chart]:
    folder.mkdir(parents=True, exist_ok=True)
    charts = []
    for name, caption, figure in (
        ("points", "Each point, simulated against measured", measured_against_simulated(table)),
        (
            "errors",
            "Errors of the counted points by the number of users; the bar is their median",
            errors_by_users(table[table["counted"]]),
        ),
    ):
        save(figure, folder / f"{name}.png")
        charts.append(Chart(caption, folder / f"{name}.png"))
    return charts


def _write_page(
    facts: dict[str, Any], table: pd.DataFrame, charts: list[Chart], path: Path, command: str
) -> None:
    groups = [
        [name, len(rows), *(percent(value) for value in summary(rows).values())]
        for name, rows in table.groupby("group", sort=False)
    ]
    columns = ["", "points"]
    columns += [
        f"{n} {what}" for n in ("TTFT", "TPOT") for what in ("MAPE", "median |e|", "median")
    ]
    constants = [
        [name, entry["value"], entry["fitted_on"]]
        for name, entry in facts["fitted_constants"].items()
    ]
    rows = [
        [r.group, r.isl, r.osl, r.users, r.ttft_ms, r.ttft_simulated_ms, percent(r.ttft_error),
         r.tpot_ms, r.tpot_simulated_ms, percent(r.tpot_error), r.counted]
        for r in table.itertuples()
    ]  # fmt: skip
    names = ["point", "isl", "osl", "users", "TTFT", "simulated", "error", "TPOT", "simulated",
             "error", "counted"]  # fmt: skip
    write_page(
        path,
        "Closed-loop operating points, measured and simulated",
        [
            Section("Errors", HOW, [Table("By model and parallelism", columns, groups)], charts),
            Section("Every point", "Times in ms.", [Table("Points", names, rows)]),
            Section(
                "What was fitted, and on what",
                tables=[Table("Constants", ["constant", "value", "fitted on"], constants)],
            ),
        ],
        commands=[command],
        facts={"points": len(table), "prices from": ", ".join(facts["prices_from"])},
        headlines=[
            Headline("TTFT, MAPE", percent(facts["ttft_mape"], signed=False), "over points"),
            Headline("TPOT, MAPE", percent(facts["tpot_mape"], signed=False), "over points"),
        ],
    )
