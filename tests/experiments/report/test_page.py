"""Pages: one file, nothing from outside, nothing of a config becomes markup, all parts named."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from experiments.report.page import Chart, Headline, Section, Table, number, write_page
from workbench.errors import WorkbenchError

VOID = {"meta", "link", "img", "br", "hr"}
NASTY = "<script>alert(1)</script> & {{ 7 * 7 }} \"' </pre></td> ${x}"


class Reader(HTMLParser):
    """What a page consists of; refuses tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "chart.png"
    Figure(figsize=(2, 1), dpi=50).savefig(path)
    return path


def full_page(folder: Path, png: Path) -> Path:
    out = folder / "page.html"
    write_page(
        out,
        f"Title {NASTY}",
        [
            Section(
                f"One {NASTY}",
                f"First {NASTY}.\n\nSecond.",
                [
                    Table(
                        f"Caption {NASTY}", ["name", "x", NASTY], [["a", 1.5, NASTY], ["b", 2, ""]]
                    )
                ],
                [Chart(f"Chart {NASTY}", png, f"Alt {NASTY}")],
                code=f"a: 1\n  b: {NASTY}\n",
            ),
            *(Section(f"Number {i}", "text") for i in range(3)),
        ],
        [f"python -m x 'a={NASTY}'"],
        {f"Fact {NASTY}": NASTY, "seed": 0},
        headlines=[Headline(NASTY, NASTY, NASTY)],
        summary=f"About {NASTY}",
    )
    return out


def test_nothing_of_the_users_becomes_markup(tmp_path: Path, png: Path) -> None:
    page = read(full_page(tmp_path, png))
    text = "".join(page.text)
    assert page.all("script") == []
    assert text.count("<script>alert(1)</script>") >= 12
    assert "{{ 7 * 7 }}" in text
    assert "49" not in text
    (image,) = page.all("img")
    assert image["alt"] == f"Alt {NASTY}"


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_is_shown_as_it_is(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    out = tmp_path_factory.getbasetemp() / "any.html"
    write_page(out, "t", [Section("s", tables=[Table("c", ["n"], [[text]])])])
    reader = read(out)
    rows = "".join(reader.text)
    assert text in rows


def test_the_page_asks_for_nothing(tmp_path: Path, png: Path) -> None:
    content = full_page(tmp_path, png).read_text(encoding="utf-8")
    page = read(tmp_path / "page.html")
    policy = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("data:", "#")), (tag, value)
    style = content[content.index("<style>") : content.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style


def test_the_chart_is_in_the_page_with_its_size(tmp_path: Path, png: Path) -> None:
    (image,) = read(full_page(tmp_path, png)).all("img")
    kind, _, data = str(image["src"]).partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == png.read_bytes()
    assert (image["width"], image["height"]) == ("100", "50")


def test_headings_are_in_order_and_parts_are_named(tmp_path: Path, png: Path) -> None:
    page = read(full_page(tmp_path, png))
    levels = [tag for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels == ["h1", *["h2"] * 6]
    ids = [attributes["id"] for attributes in page.all("h2")]
    assert len(ids) == len(set(ids))
    assert [s["aria-labelledby"] for s in page.all("section")] == ids
    targets = [str(a["href"])[1:] for a in page.all("a")]
    assert set(targets) <= set(ids)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("main")) == 1


def test_tables_have_a_caption_and_heads(tmp_path: Path, png: Path) -> None:
    page = read(full_page(tmp_path, png))
    assert len(page.all("caption")) == len(page.all("table")) == 1
    scopes = [head["scope"] for head in page.all("th")]
    assert scopes == ["col"] * 3 + ["row"] * 2
    (region,) = (d for d in page.all("div") if d.get("role") == "region")
    assert region["aria-label"] == f"Caption {NASTY}"
    assert region["tabindex"] == "0"  # so that the keyboard can scroll it


def test_cells_read_well(tmp_path: Path) -> None:
    cells = [1234567, 0.012345678, 12345.6, True, None, float("nan"), "1.2/3.4"]
    write_page(tmp_path / "p.html", "t", [Section("s", tables=[Table("c", ["n"] * 7, [cells])])])
    text = [t for t in read(tmp_path / "p.html").text if t.strip()]
    dash = "\N{EN DASH}"
    assert text[-7:] == ["1,234,567", "0.01235", "12,346", "yes", dash, dash, "1.2/3.4"]
    assert number(0.5) == "0.5"


def test_numbers_stand_on_the_right(tmp_path: Path) -> None:
    rows = [["a", 1.0, "12 %", "1.2/-", "fast"], ["b", None, "3 %", "3/4", "slow"]]
    write_page(tmp_path / "p.html", "t", [Section("s", tables=[Table("c", list("abcde"), rows)])])
    heads = [h.get("class") for h in read(tmp_path / "p.html").all("th") if h["scope"] == "col"]
    assert heads == [None, "number", "number", "number", None]


def test_a_column_without_a_name_has_no_empty_head(tmp_path: Path) -> None:
    write_page(tmp_path / "p.html", "t", [Section("s", tables=[Table("c", ["", "x"], [["a", 1]])])])
    page = read(tmp_path / "p.html")
    assert [head["scope"] for head in page.all("th")] == ["col", "row"]
    assert len(page.all("td")) == 2


def test_a_page_may_be_almost_empty(tmp_path: Path) -> None:
    write_page(tmp_path / "p.html", "Nothing", [])
    assert "".join(read(tmp_path / "p.html").text).split() == ["Nothing", "Nothing"]
    write_page(tmp_path / "p.html", "t", [Section("s", tables=[Table("none", ["a", "b"], [])])])
    assert read(tmp_path / "p.html").all("td") == []


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "p.html"
    wrong = Table("Latency", ["a", "b"], [[1]])
    with pytest.raises(WorkbenchError, match="'Latency': a row of 1 cells under 2 columns"):
        write_page(out, "t", [Section("s", tables=[wrong])])
    with pytest.raises(WorkbenchError, match=r"missing\.png"):
        write_page(out, "t", [Section("s", charts=[Chart("c", tmp_path / "missing.png")])])
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(WorkbenchError, match="is no PNG"):
        write_page(out, "t", [Section("s", charts=[Chart("c", tmp_path / "text.png")])])
    assert not out.exists()
