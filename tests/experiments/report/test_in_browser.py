"""Pages in a real browser: no complaint, no request, nothing over the edge, whole on paper.

Needs Chromium or Chrome on the machine; without one these tests are skipped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.figures import style
from experiments.report.page import Chart, Headline, Section, Table, write_page
from tests.experiments.report.browser import Browser, browser_path

SIZES = (1280, 400)
# elements that stick out of the page although nothing around them scrolls
OUTSIDE = """
[...document.querySelectorAll('body *')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width > 0 && box.right > document.documentElement.clientWidth + 1
      && !e.closest('.scroll') && !e.closest('svg');
}).map(e => e.tagName + ' ' + e.textContent.slice(0, 40))
"""
# contrast of every text with the background under it, as WCAG 2 computes it
CONTRAST = """
(() => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = c => {
    const part = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !e.getClientRects().length) continue;
    const one = light(rgb(getComputedStyle(e).color)), two = light(behind(e));
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < 4.5) bad.push(`${e.tagName} ${ratio.toFixed(2)} ${e.textContent.slice(0, 30)}`);
  }
  return bad;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = browser_path()
    if path is None:
        pytest.skip("no Chromium or Chrome on this machine: install one to test pages in it")
    with Browser(path, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything that is hard to fit: wide and long tables, long words, big charts."""
    folder = tmp_path_factory.mktemp("page")
    figure, _ = style.panels("A wide chart", width=14, height=5)
    style.save(figure, folder / "wide.png")
    figure, _ = style.panels("A tall chart", width=5, height=18)
    style.save(figure, folder / "tall.png")
    word = "scheduler.long_prefill_token_threshold_adaptive=" + "x" * 90
    long = [[f"row {i}", 1234.5 * i, f"{word} {i}", i % 2 == 0] for i in range(120)]
    wide = [[f"configuration {i}", *(1000.5 * i + j for j in range(18))] for i in range(8)]
    write_page(
        folder / "page.html",
        f"A page about {word}",
        [
            Section("Long table", "Words.", [Table("Rows", ["a", "b", "c", "d"], long)]),
            Section("Wide", tables=[Table("Wide", [f"column {j}" for j in range(19)], wide)]),
            Section("Charts", charts=[Chart("Wide", folder / "wide.png"),
                                      Chart("Tall", folder / "tall.png")]),
            Section("Config", code=f"FOLDED {word}\n" * 80),
        ],
        [f"python -m experiments.run {word}"],
        {"revision": "abcdef" * 20, "packages": "numpy 2.0, " * 20},
        headlines=[Headline(f"Number {i}", "1,234.5 requests/s", word) for i in range(5)],
    )  # fmt: skip
    return folder / "page.html"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", SIZES)
def test_a_page_on_a_screen(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OUTSIDE) == []
    assert browser.evaluate(CONTRAST) == []
    assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_dark_is_dark_and_paper_is_white(browser: Browser, page: Path) -> None:
    def background() -> Any:
        return browser.evaluate("getComputedStyle(document.body).backgroundColor")

    browser.open(page, dark=True)
    assert background() == "rgb(21, 24, 27)"
    browser.call("Emulation.setEmulatedMedia", media="print",
                 features=[{"name": "prefers-color-scheme", "value": "dark"}])  # fmt: skip
    assert background() == "rgb(255, 255, 255)"
    assert browser.evaluate(CONTRAST) == []


def test_nothing_is_cut_on_paper(browser: Browser, page: Path) -> None:
    browser.open(page, width=680)  # A4 less its margins
    browser.call("Emulation.setEmulatedMedia", media="print")
    over = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide')"
    over += " && e.getBoundingClientRect().right > 681).map(e => e.tagName + e.className)"
    assert browser.evaluate(over) == []
    browser.open(page, width=1031)  # the same in landscape
    browser.call("Emulation.setEmulatedMedia", media="print")
    wide = "[...document.querySelectorAll('section.wide table')]"
    assert browser.evaluate(f"{wide}.length") == 1
    assert browser.evaluate(f"{wide}.every(e => e.getBoundingClientRect().right <= 1032)")
    # what is folded on a screen has a height on paper
    assert browser.evaluate("document.querySelector('details pre').clientHeight") > 500


def test_a_page_can_be_printed(browser: Browser, page: Path) -> None:
    browser.open(page)
    paper = browser.pdf()
    assert paper.startswith(b"%PDF-")
    assert paper.count(b"/Type /Page\n") >= 6
    boxes = {box for box in (b"/MediaBox [0 0 594", b"/MediaBox [0 0 841") if box in paper}
    assert len(boxes) == 2, "upright pages, and one in landscape for the wide table"


def test_the_keyboard_reaches_what_scrolls(browser: Browser, page: Path) -> None:
    browser.open(page, width=400)
    hidden = "[...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1"
    hidden += " && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && e.tabIndex < 0)"
    assert browser.evaluate(f"{hidden}.map(e => e.tagName)") == []
