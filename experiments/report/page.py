"""One self-contained HTML page out of tables, charts, commands and facts.

Knows how a page looks on a screen and on paper (`page.css`) and what makes it readable to
everybody: headings in order, captions, heads of rows and columns, texts beside pictures. Knows
nothing of runs or metrics. The page asks for nothing from outside, and its own policy forbids it;
whatever comes from a config or a file is text and never becomes markup.
"""

import base64
import functools
import math
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.run_folder import write_atomically
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from jinja2 import Template

FOLDER = Path(__file__).resolve().parent
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHART_BYTES = 8_000_000
WIDE_COLUMNS = 10  # a section with a table of more is printed in landscape
CROWDED_COLUMNS = 14  # a table of more is printed small
LONG_CELL = 24  # characters; a column of longer cells may break its words on paper
NOTHING = "\N{EN DASH}"
_NUMBER = r"[-+\N{MINUS SIGN}]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?[kMG]?"
_UNIT = r"(%|\N{MULTIPLICATION SIGN}|x|m?s|min|h)"
_NUMERIC = re.compile(rf"{_NUMBER}(\s?(/|\.\.|to|±)\s?({_NUMBER}|-))*\s?{_UNIT}?|-|{NOTHING}|")


@dataclass(frozen=True)
class Headline:
    """A number that the page begins with: its name, the value with its unit, and what it means."""

    name: str
    value: str
    meaning: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns; the first cell of a row is the row's name.

    Cells may be text, numbers (shown with four digits), true or false, or None for "not known".
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Chart:
    """A PNG that the page will hold. `alt` says what can be seen, for those who cannot see it."""

    caption: str
    path: str | os.PathLike[str]
    alt: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own.

    Attributes:
        text: Paragraphs, parted by empty lines.
        code: Text that keeps its lines and spaces, such as a config; folded on a screen.
    """

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    code: str = ""


def write_page(
    path: str | os.PathLike[str],
    title: str,
    sections: Sequence[Section],
    commands: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    *,
    headlines: Sequence[Headline] = (),
    summary: str = "",
) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: The file to write.
        title: What the page is about, in a line.
        sections: The body, in order.
        commands: The command lines that made it, to be repeated.
        facts: Where it comes from: versions, revision, machine, seed, by name.
        headlines: The few numbers that matter most; they stand at the top.
        summary: A paragraph under the title.

    Raises:
        WorkbenchError: A chart that is not there or is no PNG, a row that does not fit its columns.
    """
    from markupsafe import Markup

    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    text = _template().render(
        title=title,
        summary=_paragraphs(summary),
        headlines=headlines,
        sections=[_section(section) for section in sections],
        commands=commands,
        facts={name: _cell(value) for name, value in (facts or {}).items()},
        style=Markup(style),  # ours, not the user's
    )
    write_atomically(Path(path), text)


@functools.cache
def _template() -> "Template":
    """The page's template. It escapes whatever it is given."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")


def _section(section: Section) -> dict[str, Any]:
    """What the template needs of a section."""
    return {
        "title": section.title,
        "paragraphs": _paragraphs(section.text),
        "tables": [_table(table) for table in section.tables],
        "charts": [_chart(chart) for chart in section.charts],
        "code": section.code,
        "wide": any(len(table.columns) > WIDE_COLUMNS for table in section.tables),
    }


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def _table(table: Table) -> dict[str, Any]:
    columns = [str(column) for column in table.columns]
    for row in table.rows:
        if len(row) != len(columns):
            raise WorkbenchError(
                f"table {table.caption!r}: a row of {len(row)} cells under {len(columns)} columns: "
                "give each row one cell a column"
            )
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    return {
        "caption": table.caption,
        "columns": columns,
        "rows": rows,
        "crowded": len(columns) > CROWDED_COLUMNS,
        "numeric": [all(_NUMERIC.fullmatch(row[i]) for row in rows) for i in range(len(columns))],
        "long": [any(len(row[i]) > LONG_CELL for row in rows) for i in range(len(columns))],
    }


def _cell(value: Any) -> str:
    """A cell as people read it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if hasattr(value, "item") and not getattr(value, "shape", ()):  # a number of numpy's
        return _cell(value.item())
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    return str(value)


def number(value: float) -> str:
    """Four significant digits, thousands with commas: 0.0123, 1.5, 98.76, 12,345."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _chart(chart: Chart) -> dict[str, Any]:
    """The chart as a data URI, with its size in pixels so that the page does not jump."""
    try:
        content = Path(chart.path).read_bytes()
    except OSError as error:
        raise WorkbenchError(f"chart {chart.path}: {error.strerror}; draw it first") from error
    if not content.startswith(PNG_SIGNATURE) or len(content) < 24:
        raise WorkbenchError(f"chart {chart.path} is no PNG: save the figure as one")
    if len(content) > MAX_CHART_BYTES:
        raise WorkbenchError(
            f"chart {chart.path} has {len(content):,} bytes, more than {MAX_CHART_BYTES:,}: "
            "draw it smaller"
        )
    width, height = struct.unpack(">II", content[16:24])  # the first chunk, IHDR
    return {
        "caption": chart.caption,
        "alt": chart.alt or f"Chart: {chart.caption}",
        "width": width,
        "height": height,
        "data": base64.b64encode(content).decode("ascii"),
    }
