"""A validation for people: a table on the terminal, a page with tables and charts.

Knows what `compare` found and where the runs lie.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.validation.charts import band_charts, name_of, run_charts
from experiments.validation.compare import GOALS
from simulator.calibration import Calibration

ERRORS = (
    ("throughput", "output_tokens_per_s_error"),
    ("TTFT mean", "ttft_mean_error"),
    ("TTFT p50", "ttft_p50_error"),
    ("TTFT p99", "ttft_p99_error"),
    ("TPOT mean", "tpot_mean_error"),
    ("TPOT p99", "tpot_p99_error"),
    ("E2E mean", "e2e_mean_error"),
    ("E2E p99", "e2e_p99_error"),
    ("E2E MAPE", "e2e_mape"),
)
COUNTS = (
    ("output tokens/s", "output_tokens_per_s", "{:.0f}"),
    ("preemptions", "preemptions", "{:.0f}"),
    ("prefix hits (%)", "prefix_hit_rate", "{:.1%}"),
    ("steps", "steps", "{:.0f}"),
)
# errors of the goals, and what stands before their columns
WHERE = {
    "errors": "",
    "errors_of_means": "means: ",
    "errors_at_its_speed": "at its speed: ",
    "errors_of_means_at_its_speed": "means at its speed: ",
}
TITLE = "The engine and its simulation"


def write_report(folder: Path, result: Mapping[str, Any], calibration: Calibration) -> None:
    """Write report.html and its charts."""
    from experiments.calibration_report import residual_table
    from experiments.report.page import Section, write_page

    cases = result["cases"]
    write_page(
        folder / "report.html",
        TITLE,
        [
            Section("Goals", _about_goals(result), [goals_table(result)]),
            *_means_section(result),
            Section("Errors of every run", _ABOUT_ERRORS, [errors_table(cases, "errors")]),
            Section(
                "The same at the speed that the machine had",
                _about_speed(cases),
                [errors_table(cases, "errors_at_its_speed"), machine_table(cases)],
            ),
            Section("What was served", "Engine / simulator.", [counts_table(cases)]),
            Section("Ranking of the policies", _ABOUT_RANKING, [ranking_table(result)]),
            Section("Bands", _about_bands(result), [coverage_table(result)],
                    band_charts(folder, result)),
            Section("Both worlds over each other", charts=run_charts(folder, cases)),
            Section("The calibration", tables=[residual_table(calibration)]),
        ],
        [str(result["command"])],
        {"date": result["date"], "cpu": result["machine"]["cpu"],
         "torch threads": result["calibration"].get("torch_threads"),
         "others during calibration (CPUs)":
             _largest(result["calibration"].get("cpus_used_by_others", {})),
         "CPUs slower than at their best, during calibration, by":
             _largest(result["calibration"].get("slowed", {}))},
    )  # fmt: skip


_ABOUT_ERRORS = (
    "Simulated over measured, less 1, means over several draws of the steps' noise. MAPE: mean of"
    " the absolute errors over requests. The simulator knows the calibration and the workload, and"
    " nothing of the run."
)
_ABOUT_SPEED = "The simulator's steps are here longer or shorter: by "
_BY_PROBE = (
    "how fast the machine was in that second of the run. A small piece of fixed work, timed twenty"
    " times a second on the engine's CPUs, told it; how steps follow it is known from the"
    " calibration. Nothing of the run itself is in it."
)
_BY_DECODES = (
    "one number a run, the median of the engine's decode steps over that of the simulator's with as"
    " many rows. What the machine's moods explain is taken out; it is a diagnosis, and no"
    " prediction."
)
_ABOUT_RANKING = (
    "Policies from best to worst. Pairs: how many pairs of policies that differ by more than 3 %"
    " on the engine are in the same order in the simulator."
)


def _about_speed(cases: Sequence[Mapping[str, Any]]) -> str:
    is_probed = all(case["slowdown_told_by"] == "probe" for case in cases)
    return _ABOUT_SPEED + (_BY_PROBE if is_probed else _BY_DECODES)


def _about_goals(result: Mapping[str, Any]) -> str:
    return (
        f"The engine serves {result['capacity_requests_per_s']:.2f} requests a second of this"
        " workload at most, measured with all requests at once; loads are parts of that."
    )


def _about_bands(result: Mapping[str, Any]) -> str:
    found = result["coverage"]
    share = "none" if found["all"] is None else f"{100 * found['all']:.0f} %"
    return (
        f"Each run was simulated again and again with the calibration's errors drawn. Of"
        f" {found['number']} measured numbers {share} lie in their {100 * found['level']:.0f} %"
        " band."
    )


_ABOUT_MEANS = (
    "Both worlds' numbers averaged over the repetitions of a load and policy, simulated over"
    " measured, less 1. What the machine does from one run to the next cancels in them."
)


def _means_section(result: Mapping[str, Any]) -> list[Any]:
    """Nothing where every load and policy has run once."""
    from experiments.report.page import Section, Table

    if all(row["runs"] == 1 for row in result["errors_of_means"]):
        return []
    columns = ("load", "policy", "runs", *(name for *_, name in GOALS))
    tables = [
        Table(caption, columns, [
            [f"{row['load']:g}", row["policy"], row["runs"],
             *(_signed(row[key]) for key, *_ in GOALS)]
            for row in result[where]
        ])
        for caption, where in (
            ("Errors", "errors_of_means"),
            ("Errors at the machine's speed", "errors_of_means_at_its_speed"),
        )
    ]  # fmt: skip
    return [Section("Means over repetitions", _ABOUT_MEANS, tables)]


def goals_table(result: Mapping[str, Any], has_largest: bool = True) -> Any:
    """Goals, and how far they are met."""
    from experiments.report.page import Table

    shown = dict(WHERE)
    if all(row["runs"] == 1 for row in result["errors_of_means"]):
        shown = {where: told for where, told in WHERE.items() if "means" not in where}
    rows = []
    for goal in result["goals"]:
        row = [goal["goal"], f"{100 * goal['limit']:.0f} %"]
        for where in shown:
            told = goal[where]
            largest = [_percent(told["largest"])] * has_largest
            within = f"{told['runs_within']} / {told['runs']}"
            row += [_percent(told["mean_absolute"]), *largest, within]
        rows.append(row)
    found = ("mean error", *["largest"] * has_largest, "runs within")
    columns = ("number", "goal", *(before + name for before in shown.values() for name in found))
    return Table("Absolute errors over all runs", columns, rows)


def errors_table(cases: Sequence[Mapping[str, Any]], where: str) -> Any:
    """Errors, a row a run."""
    from experiments.report.page import Table

    rows = [[name_of(case), *(_error(case[where], key) for _, key in ERRORS)] for case in cases]
    return Table("Errors", ("run", *(name for name, _ in ERRORS)), rows)


def machine_table(cases: Sequence[Mapping[str, Any]]) -> Any:
    """What the machine did meanwhile."""
    from experiments.report.page import Table

    rows = [
        [name_of(case), _signed(case["slowdown"] - 1), _signed(case["slowdown_of_decodes"] - 1),
         _two_digits(case["cpus_used_by_others"]),
         _signed(case["slowed"]), case["tries"]]
        for case in cases
    ]  # fmt: skip
    columns = (
        "run",
        "slower than in the calibration by",
        "its decode steps by",
        "CPUs used by others",
        "CPUs slower than at their best by",
        "tries",
    )
    return Table("The machine", columns, rows)


def counts_table(cases: Sequence[Mapping[str, Any]]) -> Any:
    """Throughput, preemptions, hits and steps in both worlds."""
    from experiments.report.page import Table

    rows = [
        [name_of(case), case["engine"]["requests"],
         *(f"{_shown(case['engine'], key, form)} / {_shown(case['simulator'], key, form)}"
           for _, key, form in COUNTS)]
        for case in cases
    ]  # fmt: skip
    return Table("Counts", ("run", "requests", *(name for name, _, _ in COUNTS)), rows)


def ranking_table(result: Mapping[str, Any]) -> Any:
    """Policies from best to worst in both worlds."""
    from experiments.report.page import Table

    rows = [
        [f"load {row['load']:g}", row["number"], ", ".join(row["measured"]),
         ", ".join(row["simulated"]), f"{row['pairs_in_the_same_order']} / {row['pairs']}"]
        for row in result["rankings"]
    ]  # fmt: skip
    return Table("Rankings", ("load", "by", "on the engine", "simulated", "pairs"), rows)


def coverage_table(result: Mapping[str, Any]) -> Any:
    """The share of measured values inside their bands."""
    from experiments.report.page import Table

    rows = [[n, f"{100 * v:.0f} %"] for n, v in result["coverage"]["by_number"].items()]
    return Table("Measured values inside their band", ("number", "inside"), rows)


def print_result(result: Mapping[str, Any]) -> None:
    """The goals, the errors and the rankings on the terminal."""
    from experiments.terminal import open_console, print_numbers

    console = open_console()
    for table in (goals_table(result, has_largest=False), errors_table(result["cases"], "errors")):
        rows = [[str(cell) for cell in row] for row in table.rows]
        headings = ["\n".join(name.rsplit(" ", 1)) for name in table.columns]
        print_numbers(console, headings, rows, table.caption)
    for name, suffix in (("rankings", ""), ("rankings_at_its_speed", ", at its speed")):
        agree = sum(row["pairs_in_the_same_order"] for row in result[name])
        pairs = sum(row["pairs"] for row in result[name])
        console.print(f"pairs of policies in the same order{suffix}: {agree} of {pairs}")
    found = result["coverage"]
    if found["all"] is not None:
        console.print(
            f"measured values in their {100 * found['level']:.0f} % band:"
            f" {100 * found['all']:.0f} % of {found['number']}"
        )


def _shown(numbers: Mapping[str, Any], key: str, form: str) -> str:
    value = numbers.get(key)
    return "-" if value is None else form.format(value).rstrip("%")


def _error(errors: Mapping[str, Any], key: str) -> str:
    value = errors.get(key)
    return _percent(value) if key.endswith("mape") else _signed(value)


def _signed(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:+.1f} %"


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.1f} %"


def _two_digits(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _largest(values: Mapping[str, Any]) -> Any:
    known = [value for value in values.values() if value is not None]
    return f"at most {max(known):.2f}" if known else None
