"""The page of a folder of results of any other kind: every table, every number, every chart in it.

Knows CSV files, JSON files of plain numbers and PNG files, at the top of the folder and in its
`charts`. A command that knows more of its results writes a better page itself.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.report import sources
from experiments.report.captions import chart
from experiments.report.page import Section, Table, write_page
from experiments.run_folder import CHARTS, PROVENANCE
from workbench.errors import WorkbenchError

MAX_ROWS = 200
MAX_COLUMNS = 24


def is_folder_of_results(folder: Path) -> bool:
    """Whether there is anything in it for a page."""
    return any(_files(folder, suffix) for suffix in ("json", "csv", "png"))


def write_folder_page(folder: Path, out: Path) -> None:
    """Writes a page of all that lies in the folder. Raises WorkbenchError if there is nothing."""
    if not is_folder_of_results(folder):
        raise WorkbenchError(
            f"{folder}: no run, no sweep and no table or chart in it: name a folder of results"
        )
    sections = [
        *(section for path in _files(folder, "json") for section in _numbers(path)),
        *(section for path in _files(folder, "csv") for section in _rows(path)),
    ]
    charts = [*_files(folder, "png"), *_files(folder / CHARTS, "png")]
    if charts:
        sections.append(Section("Charts", charts=[chart(path) for path in charts]))
    provenance = sources.read_provenance(folder)
    command = sources.command_line(provenance.get("argv") or [])
    write_page(
        out,
        f"Results in {folder.resolve().name}",
        sections,
        [command] if command else (),
        sources.facts(provenance),
    )


def _files(folder: Path, suffix: str) -> list[Path]:
    return sorted(p for p in folder.glob(f"*.{suffix}") if p.name != PROVENANCE)


def _numbers(path: Path) -> Iterator[Section]:
    """The numbers and words of a JSON file as a table of two columns."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WorkbenchError(f"{path}: is no JSON ({error}); write it anew") from error
    flat = dict(_flat(content)) if isinstance(content, Mapping) else {}
    if flat:
        rows = list(flat.items())[:MAX_ROWS]
        yield Section(path.name, tables=[Table(f"What {path.name} says", ["name", "value"], rows)])


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield f"{prefix}{key}", value


def _rows(path: Path) -> Iterator[Section]:
    """The rows of a CSV file, as many as a page can show."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    if len(lines) < 2:
        return
    columns, rows = lines[0][:MAX_COLUMNS], [line[:MAX_COLUMNS] for line in lines[1:]]
    cells = [[_value(cell) for cell in row] + [None] * (len(columns) - len(row)) for row in rows]
    more = f"The first {MAX_ROWS} of {len(rows):,} rows." if len(rows) > MAX_ROWS else ""
    yield Section(path.name, more, [Table(f"Rows of {path.name}", columns, cells[:MAX_ROWS])])


def _value(cell: str) -> Any:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell or None
