"""The page of a sweep: its runs beside each other, the charts that compare them, what failed.

Knows what `compare` collects from a folder of runs.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.compare import Sweep, collect_runs, comparison_figures
from experiments.compare_table import headline_rows
from experiments.figures import style
from experiments.report import sources
from experiments.report.captions import chart
from experiments.report.metrics import seconds
from experiments.report.page import Headline, Section, Table, number, write_page
from experiments.report.run_page import config_sections, describe

# metric, name, unit of a rate (None: a time, of which less is better)
BEST = (
    ("goodput_requests_per_s", "Most goodput", "requests/s"),
    ("output_tokens_per_s", "Most output tokens", "per second"),
    ("ttft_s_p99", "Shortest TTFT p99", None),
    ("tpot_s_p99", "Shortest TPOT p99", None),
)


def write_sweep_page(folder: Path, out: Path) -> None:
    """Writes the page of the runs below `folder`. Raises WorkbenchError if there is none."""
    sweep = collect_runs(folder)
    names = [str(name) for name in sweep.runs["run"]] if len(sweep.runs) else []
    first = folder / (names or [str(sweep.failed["run"].iloc[0])])[0]
    provenances = [sources.read_provenance(folder / name) for name in names]
    with tempfile.TemporaryDirectory() as place:
        charts = []
        for name, figure in comparison_figures(sweep):
            path = Path(place) / f"{name}.png"
            style.save(figure, path)
            charts.append(chart(path))
        sections = [
            *_comparison(sweep),
            *([Section("Charts", charts=charts)] if charts else []),
            *_failed(sweep),
            *_first_config(first),
        ]
        write_page(
            out,
            f"Sweep: {folder.resolve().name}",
            sections,
            _commands(folder, provenances),
            _facts(provenances),
            headlines=_headlines(sweep.runs),
            summary=_summary(sweep, first),
        )


def _summary(sweep: Sweep, first: Path) -> str:
    keys = ", ".join(sweep.varying) or "nothing"
    ended = f"{len(sweep.runs)} runs finished" + (
        f", {len(sweep.failed)} did not" if len(sweep.failed) else ""
    )
    return f"{ended}. What differs between them: {keys}.\n\nThe first: {describe(first)}"


def _headlines(runs: pd.DataFrame) -> list[Headline]:
    """The best run of each kind of best."""
    made = []
    for key, name, unit in BEST:
        values = (
            pd.to_numeric(runs[key], errors="coerce") if key in runs else pd.Series(dtype=float)
        )
        if len(runs) > 1 and values.notna().any():
            best = values.idxmax() if unit else values.idxmin()
            value = float(values[best])
            text = f"{number(value)} {unit}" if unit else seconds(value)
            made.append(Headline(name, text, str(runs["label"][best])))
    return made


def _comparison(sweep: Sweep) -> list[Section]:
    if sweep.runs.empty:
        return []
    names, rows = headline_rows(sweep.runs, sweep.varying)
    columns = [name.replace("-\n", "").replace("\n", " ") for name in names]
    keys = max(len([key for key in sweep.varying if key in sweep.runs]), 1)
    labelled = rows if keys == 1 else [[", ".join(row[:keys]), *row[keys:]] for row in rows]
    head = columns if keys == 1 else [", ".join(columns[:keys]), *columns[keys:]]
    table = Table("Each run in a row; comparison.csv has every metric", head, labelled)
    text = (
        "Two numbers in a cell are the median and the 99th percentile. TTFT is the time from "
        "arrival to first token, TPOT the mean gap between the tokens of a request, goodput the "
        "rate of requests within all limits of the SLO."
    )
    return [Section("Comparison", text, [table])]


def _failed(sweep: Sweep) -> list[Section]:
    if sweep.failed.empty:
        return []
    rows = [[row["label"], row["status"], row["error"]] for row in sweep.failed.to_dict("records")]
    return [Section("Runs without a result", tables=[Table("Why", ["run", "what", "why"], rows)])]


def _first_config(folder: Path) -> list[Section]:
    return [
        Section(
            "Config of the first run",
            "The others differ from it in what the comparison names.",
            section.tables,
            code=section.code,
        )
        for section in config_sections(folder)
    ]


def _commands(folder: Path, provenances: Sequence[dict[str, Any]]) -> list[str]:
    command = sources.sweep_command(folder)
    if command is not None:
        return [command]
    lines = [sources.command_line(p.get("argv") or []) for p in provenances]
    return list(dict.fromkeys(line for line in lines if line))


def _facts(provenances: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Those of the first run; what is not the same in all of them says so."""
    told = [sources.facts(p) for p in provenances if p]
    if not told:
        return {}
    same = dict(told[0])
    for name in list(same):
        values = list(dict.fromkeys(facts.get(name, "") for facts in told))
        if len(values) > 1 and name == "Started":
            same[name] = f"{min(values)} to {max(values)}"
        elif len(values) > 1 and name == "Took":
            del same[name]
        elif len(values) > 1:
            shown = " | ".join(value or "not known" for value in values[:4])
            same[name] = f"not the same in all runs: {shown}"
    return same
