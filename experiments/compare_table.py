"""The comparison of several runs as text: a table on the terminal and a Markdown page.

Knows the frames of ``compare.Sweep`` and which metrics come first. Reads and writes no file.
"""

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.figures import style

# heading, metrics whose values share a cell, factor; the most telling first
HEADLINES: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("output\ntokens/s", ("output_tokens_per_s",), 1.0),
    ("TTFT (s)\np50/p99", ("ttft_s_p50", "ttft_s_p99"), 1.0),
    ("TPOT (ms)\np50/p99", ("tpot_s_p50", "tpot_s_p99"), 1e3),
    ("goodput\nreq/s", ("goodput_requests_per_s",), 1.0),
    ("prefix\nhits (%)", ("prefix_hit_rate",), 100.0),
    ("preemp-\ntions", ("preemptions",), 1.0),
    ("finished\nreq/s", ("requests_per_s",), 1.0),
    ("E2E (s)\np50/p99", ("e2e_s_p50", "e2e_s_p99"), 1.0),
)


def headline_rows(runs: pd.DataFrame, varying: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """(column names, rows of text): what varies, then the headline metrics that any run has."""
    keys = [k for k in varying if k in runs]
    shown = [h for h in HEADLINES if any(m in runs and runs[m].notna().any() for m in h[1])]
    names = [k.rsplit(".", 1)[-1] for k in keys] or ["run"]
    rows = []
    for row in runs.to_dict("records"):
        cells = [_cell(row[k]) for k in keys] or [str(row["run"])]
        for _, metrics, factor in shown:
            cells.append("/".join(_metric(row.get(m), factor) for m in metrics))
        rows.append(cells)
    return names + [heading for heading, _, _ in shown], rows


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "default"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _metric(value: Any, factor: float) -> str:
    return "-" if value is None or value != value else style.compact(float(value) * factor)


def print_comparison(
    runs: pd.DataFrame, failed: pd.DataFrame, varying: Sequence[str], console: Console
) -> None:
    """The table of the runs as wide as the console allows, and below it the runs that failed."""
    names, rows = headline_rows(runs, varying)
    settings = max(len([k for k in varying if k in runs]), 1)
    fitting = _fitting(names, rows, settings, console.width)
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for i, name in enumerate(names[:fitting]):
        side: Literal["left", "right"] = "left" if i < settings else "right"
        table.add_column(Text(name), justify=side, overflow="fold", no_wrap=i >= settings)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row[:fitting]))
    if rows:
        console.print(table)
    if fitting < len(names):
        console.print(f"{len(names) - fitting} more columns in comparison.md", style="dim")
    for row in failed.to_dict("records"):
        text = f"{row['status']}: {row['run']} ({row['label']}): {row['error']}"
        console.print(text, style="red", markup=False, highlight=False)


def _fitting(names: list[str], rows: list[list[str]], settings: int, width: int) -> int:
    """How many columns fit; those of the settings and the first metric are always there."""
    used = 0
    for i, column in enumerate(zip(names, *rows, strict=True)):
        used += max(len(line) for cell in column for line in cell.split("\n")) + 2
        if used > width and i > settings:
            return i
    return len(names)


def markdown(
    runs: pd.DataFrame, failed: pd.DataFrame, varying: Sequence[str], charts: Sequence[str]
) -> str:
    """The page ``comparison.md``: the table, the runs without a result, the charts."""
    names, rows = headline_rows(runs, varying)
    lines = ["# Comparison", "", f"{len(runs)} runs finished, {len(failed)} did not."]
    if rows:
        names = [name.replace("-\n", "").replace("\n", " ") for name in names]
        grid = [names, ["---"] * len(names), *rows]
        lines += ["", *("| " + " | ".join(_escaped(c) for c in row) + " |" for row in grid)]
    if len(failed):
        lines += ["", "## Runs without a result", ""]
        for row in failed.to_dict("records"):
            lines.append(f"- `{row['run']}` ({row['label']}), {row['status']}: {row['error']}")
    if charts:
        lines += ["", "## Charts", "", *(f"![{n[:-4]}](charts/{n})" for n in charts)]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
