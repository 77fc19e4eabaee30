"""Tables of numbers on a terminal, in a pipe or in a log.

Knows widths: a number that is cut is worse than none, so what does not fit beside each other comes
below each other. Knows nothing of what the numbers mean.
"""

import sys
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_OF_A_LOG = 140
GAP = 2  # columns of a terminal between two of a table
SHARE_OF_NAMES = 0.4  # of the width, at most, where they can be wrapped


def open_console() -> Console:
    """The program's output; a log or a pipe has no width of its own and gets a wide one."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_LOG, highlight=False)


def print_numbers(
    console: Console, names: Sequence[str], rows: Sequence[Sequence[str]], title: str = ""
) -> None:
    """Prints a table whose first column names its rows; no cell is ever cut.

    Columns that do not fit go into further tables below, each with the names of the rows; where
    they do not, names are wrapped. A heading may have several lines, and must be understood alone.
    """
    rows = [[*row, *[""] * (len(names) - len(row))] for row in rows]
    widths = [_width(column) for column in zip(names, *rows, strict=True)]
    first = _width_of_names(widths, rows, console.width)
    if title:
        console.print(Text(title, style="bold"))
    for columns in _parts(widths, first, console.width):
        table = Table(
            box=SIMPLE_HEAD, show_edge=False, header_style="bold",
            padding=(0, GAP - 1, 0, 0), pad_edge=False,
        )  # fmt: skip
        table.add_column(Text(names[0]), width=first, overflow="fold")
        for i in columns:
            width = min(widths[i], max(console.width - first - GAP, 1))
            table.add_column(Text(names[i]), justify="right", width=width, overflow="fold")
        for row in rows:
            table.add_row(Text(row[0]), *(Text(row[i]) for i in columns))
        console.print(table)
        console.print()


def _width(cells: Sequence[str]) -> int:
    return max(len(line) for cell in cells for line in cell.split("\n"))


def _width_of_names(widths: Sequence[int], rows: Sequence[Sequence[str]], width: int) -> int:
    """All that they need, or what the share allows and their longest word needs."""
    if sum(widths) + GAP * (len(widths) - 1) <= width:
        return widths[0]
    words = [len(word) for row in rows for word in row[0].split()]
    return min(widths[0], max(int(SHARE_OF_NAMES * width), *words, 1))


def _parts(widths: Sequence[int], first: int, width: int) -> Iterator[list[int]]:
    """The columns of each table, at least one; none at all where there is only the first."""
    columns: list[int] = []
    used = first
    for i in range(1, len(widths)):
        if columns and used + GAP + widths[i] > width:
            yield columns
            columns, used = [], first
        columns.append(i)
        used += GAP + widths[i]
    yield columns
