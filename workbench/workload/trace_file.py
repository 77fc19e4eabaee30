"""Trace files as checked columns; what is wrong is told with file, line, value, limit and cure.

Knows CSV and JSON lines, and which line each row stands on. Knows nothing of what a column means.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from workbench.errors import WorkloadError

MAX_TOKENS = 10**9  # a larger count is a defect of the file, and exact as float64 up to here


class TraceTable:
    """Rows of one trace file: columns by name, and the line each row stands on."""

    def __init__(self, path: Path, columns: dict[str, list[Any]], lines: Sequence[int]) -> None:
        self.path = path
        self.columns = columns
        self.lines = lines

    def __len__(self) -> int:
        return len(self.lines)

    def fail(self, row: int, problem: str) -> NoReturn:
        """Raise the error of one row."""
        one_line = problem.replace("\n", " ").replace("\r", " ")
        raise WorkloadError(f"{self.path}, line {self.lines[row]}: {one_line}")

    def has(self, name: str) -> bool:
        return name in self.columns

    def keep(self, rows: NDArray[np.int64]) -> "TraceTable":
        """The given rows only."""
        chosen = rows.tolist()
        columns = {name: [col[row] for row in chosen] for name, col in self.columns.items()}
        return TraceTable(self.path, columns, [self.lines[row] for row in chosen])

    def numbers(self, name: str, at_least: float = -np.inf) -> NDArray[np.float64]:
        """A column as finite numbers, each at least `at_least`."""
        values = self.columns[name]
        try:
            array = np.fromiter(map(_number, values), np.float64, len(values))
        except (TypeError, ValueError, OverflowError):
            row = next(i for i, value in enumerate(values) if not _is_number(value))
            self.fail(row, f"{name} is {values[row]!r}, which is not a number; correct the row")
        finite = np.isfinite(array)
        if not finite.all():
            row = int(np.argmin(finite))
            self.fail(row, f"{name} is {values[row]}, but it must be finite; correct the row")
        if array.size and array.min() < at_least:
            row = int(np.argmax(array < at_least))
            self.fail(
                row,
                f"{name} is {values[row]}, but it must be at least {at_least:g}; "
                "correct or remove the row",
            )
        return array

    def integers(
        self, name: str, at_least: float = -(2.0**53), at_most: float = 2.0**53
    ) -> NDArray[np.int64]:
        """A column as whole numbers in a range (both ends included)."""
        array = self.numbers(name, at_least)
        for bad, limit in (
            (array > at_most, f"at most {at_most:g}"),
            (array != np.rint(array), "a whole number"),
        ):
            if bad.any():
                row = int(np.argmax(bad))
                value = self.columns[name][row]
                self.fail(
                    row, f"{name} is {value}, but it must be {limit}; correct or remove the row"
                )
        return array.astype(np.int64)

    def token_counts(self, name: str, at_least: int = 1) -> NDArray[np.int64]:
        """A column of numbers of tokens."""
        return self.integers(name, at_least, MAX_TOKENS)


def _number(value: Any) -> float:
    """The number that a field holds; Python's own 1_000 is no number in a file."""
    if type(value) is str and "_" in value:
        raise ValueError(value)
    return float(value)


def _is_number(value: Any) -> bool:
    try:
        _number(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def read_text(path: Path, hint: str) -> str:
    """The text of a trace file; `hint` is the cure when there is no such file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise WorkloadError(f"no trace file {path}; {hint}") from None
    except UnicodeDecodeError as error:
        raise WorkloadError(
            f"{path} is not UTF-8 text (byte {error.start}); unpack or convert the file"
        ) from None
    except OSError as error:
        raise WorkloadError(f"{path} cannot be read ({error.strerror}); {hint}") from None
    if not text.strip():
        raise WorkloadError(f"{path} is empty; {hint}")
    return text


def read_csv(path: Path, needed: Sequence[str], optional: Sequence[str], hint: str) -> TraceTable:
    """Read the needed columns, and of the optional ones those that are there.

    Blank lines are left out. Raises WorkloadError for a missing column, a short or long row, or no
    row at all.
    """
    reader = csv.reader(io.StringIO(read_text(path, hint), newline=""))
    try:
        rows = list(reader)
    except csv.Error as error:
        raise WorkloadError(
            f"{path}, line {reader.line_num}: {error}; repair or replace the file"
        ) from None
    lines: Sequence[int] = range(1, len(rows) + 1)
    if reader.line_num != len(rows):
        lines = _start_lines(path)
    if not all(rows):
        lines = [line for line, row in zip(lines, rows, strict=True) if row]
        rows = [row for row in rows if row]
    header = [name.strip() for name in rows[0]]
    _check_columns(path, header, needed, hint)
    rows, lines = rows[1:], lines[1:]
    if not rows:
        raise WorkloadError(
            f"{path} has a header and no request: add a row a request, or name another file"
        )
    names = [name for name in (*needed, *optional) if name in header]
    _check_once(path, header, names)
    table = TraceTable(path, {}, lines)
    for row, count in enumerate(map(len, rows)):
        if count != len(header):
            table.fail(
                row,
                f"the row has {count} fields, the header {len(header)}; "
                "complete the row, or fetch the file again if it is cut off",
            )
    for name in names:
        index = header.index(name)
        table.columns[name] = [row[index] for row in rows]
    return table


def _start_lines(path: Path) -> list[int]:
    """The line each CSV row begins on, where quoted fields run over several lines."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        lines, before = [], 0
        for _ in reader:
            lines.append(before + 1)
            before = reader.line_num
    return lines


def _check_columns(path: Path, found: Iterable[str], needed: Sequence[str], hint: str) -> None:
    names = [" ".join(name.split()) for name in found]
    missing = [name for name in needed if name not in names]
    if missing:
        raise WorkloadError(
            f"{path} lacks the column {', '.join(missing)}: found {', '.join(names) or 'none'}; "
            f"needed are {', '.join(needed)}; rename the columns or choose another workload reader"
        )


def _check_once(path: Path, found: Sequence[str], names: Iterable[str]) -> None:
    for name in names:
        if found.count(name) > 1:
            raise WorkloadError(
                f"{path} has {found.count(name)} columns {name}, and only one can count: rename or "
                "remove the others"
            )


def read_jsonl(path: Path, needed: Sequence[str], optional: Sequence[str], hint: str) -> TraceTable:
    """Read JSON lines, one object a line; columns as in `read_csv`, None where a row lacks one."""
    texts = read_text(path, hint).split("\n")
    lines: Sequence[int] = range(1, len(texts) + 1)
    lines = [line for line, text in zip(lines, texts, strict=True) if text.strip()]
    table = TraceTable(path, {}, lines)
    rows = _parse([texts[line - 1] for line in lines], json.loads, table)
    for row, item in enumerate(rows):
        if type(item) is not dict:
            table.fail(row, f"{type(item).__name__} instead of a JSON object; correct the line")
    _check_columns(path, rows[0], needed, hint)
    for name in needed:
        try:
            table.columns[name] = [row[name] for row in rows]
        except KeyError:
            row_number = next(i for i, row in enumerate(rows) if name not in row)
            found = ", ".join(rows[row_number]) or "none"
            table.fail(row_number, f"{name} is missing, found {found}; complete the row")
    for name in optional:
        values = [row.get(name) for row in rows]
        if any(value is not None for value in values):
            table.columns[name] = values
    return table


def list_column(
    table: TraceTable, name: str, convert: Callable[[Any], Any] = lambda value: value
) -> list[tuple[Any, ...]]:
    """A column of lists as tuples; `convert` makes a list of another notation."""
    tuples = []
    for row, value in enumerate(map(convert, table.columns[name])):
        if type(value) is not list:
            table.fail(row, f"{name} is {value!r}, but it must be a list of ids; correct the row")
        tuples.append(tuple(value))
    return tuples


def _parse(texts: list[str], parse: Callable[[str], Any], table: TraceTable) -> list[Any]:
    rows: list[Any] = []
    try:
        rows.extend(map(parse, texts))
    except (ValueError, RecursionError) as error:
        table.fail(
            len(rows),
            f"not valid JSON ({getattr(error, 'msg', 'too deep')}): {_start(texts[len(rows)])}; "
            "repair the line, or fetch the file again if it is cut off",
        )
    return rows


def _start(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 60 else text[:57] + "..."
