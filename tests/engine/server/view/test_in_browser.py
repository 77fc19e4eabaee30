"""The live view in a real browser: it moves, stands still, goes back, and comes back.

Needs Chromium or Chrome on the machine; without one these tests are skipped.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.server import view
from experiments.run_folder import RECORDING
from experiments.view import make_page
from tests.engine.server.serving import RunningServer, serving
from tests.experiments.report.browser import Browser, browser_path
from tests.experiments.report.test_in_browser import CONTRAST, OUTSIDE
from tests.parity.script_worlds import record
from tests.parity.test_replay import crowded

# room for some of the requests only: they share a beginning, and the last ones are thrown out
CROWDED = {"num_blocks": 26, "step_s": 0.006, "max_num_batched_tokens": 256}
PROMPT = "words that are the beginning of every prompt here, " * 3
POSITION = "document.getElementById('position').textContent"
STATUS = "document.getElementById('status').textContent"
ROWS = "document.querySelectorAll('#requests tr').length"
NUMBERS = "[...document.querySelectorAll('.chart dd')].map(e => e.textContent)"
HAS_STEPS = f"{POSITION}.startsWith('step ')"
# how many different colours a canvas shows
COLOURS = """(id => {
  const canvas = document.getElementById(id);
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(data.buffer)).size;
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = browser_path()
    if path is None:
        pytest.skip("no Chromium or Chrome on this machine: install one to test pages in it")
    with Browser(path, tmp_path_factory.mktemp("profile")) as started:
        yield started


@contextmanager
def loaded(server: RunningServer) -> Iterator[None]:
    """Requests that come again and again until the end of the block."""
    is_over = threading.Event()

    def ask(first: int) -> None:
        number = first
        while not is_over.is_set():
            body = {"prompt": f"{PROMPT}{number}", "max_tokens": 60, "ignore_eos": True}
            server.post("/v1/completions", body)
            number += 10

    clients = [threading.Thread(target=ask, args=(n,)) for n in range(5)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        is_over.set()
        for client in clients:
            client.join(20)


@pytest.fixture(scope="module")
def busy() -> Iterator[RunningServer]:
    with serving(extensions=[view], **CROWDED) as server, loaded(server):
        yield server


@pytest.fixture(scope="module")
def shown(browser: Browser, busy: RunningServer) -> Browser:
    """The page of a busy server that has thrown a request out."""
    browser.open(f"{busy.url}/view")
    browser.wait_for(HAS_STEPS)
    browser.wait_for("document.querySelectorAll('#events li').length > 0")
    browser.wait_for(f"{ROWS} > 2")
    return browser


def test_it_moves_and_asks_for_nothing_elsewhere(shown: Browser, busy: RunningServer) -> None:
    first = shown.evaluate(POSITION)
    shown.wait_for(f"{POSITION} !== {first!r}")
    shown.wait_for(f"{STATUS} === 'live'")
    assert shown.complaints() == []
    assert set(shown.requests()) == {f"{busy.url}/view", f"{busy.url}/view/events"}
    for canvas in ("batch", "lanes", "blocks"):
        shown.wait_for(f"{COLOURS}('{canvas}') >= 3")
    # some numbers need a request that began since the page was opened
    shown.wait_for(f"!{NUMBERS}.includes('\N{EN DASH}')")


def test_pause_steps_and_going_on(shown: Browser) -> None:
    shown.press(" ", 32)
    shown.wait_for(f"{STATUS} === 'paused'")
    slider = "document.getElementById('slider')"
    shown.press("ArrowLeft", 37)
    shown.press("ArrowLeft", 37)
    shown.wait_for(f"Number({slider}.value) === Number({slider}.max) - 2")
    shown.wait_for(f"{POSITION}.includes('before the last')")
    stands = int(shown.evaluate(f"{slider}.value"))
    shown.press("End", 35)
    shown.wait_for(f"{STATUS} === 'live' && {slider}.value > {stands + 5}")


def test_the_slider_shows_the_past(shown: Browser) -> None:
    shown.evaluate("""
      const slider = document.getElementById('slider');
      slider.value = Number(slider.max) - 20;
      slider.dispatchEvent(new Event('input'));
    """)
    shown.wait_for(f"{STATUS} === 'paused'")
    shown.wait_for("document.getElementById('pause').textContent === 'Go on'")
    shown.evaluate("document.getElementById('pause').click()")
    shown.wait_for(f"{STATUS} === 'live'")


def test_a_request_is_followed_until_escape(shown: Browser) -> None:
    shown.evaluate("document.querySelector('#requests button').click()")
    shown.wait_for("!document.getElementById('followed').hidden")
    shown.wait_for("document.querySelectorAll('#followed-facts dt').length >= 6")
    title = shown.evaluate("document.getElementById('followed-title').textContent")
    assert title.startswith("cmpl-")
    shown.wait_for(f"{COLOURS}('life') >= 2")
    shown.press("Escape", 27)
    shown.wait_for("document.getElementById('followed').hidden")


def test_blocks_tell_their_owners(shown: Browser) -> None:
    shown.press(" ", 32)
    text = "document.getElementById('tip').textContent"
    shown.evaluate("""
      const canvas = document.getElementById('blocks');
      for (let y = 4, found = false; y < canvas.clientHeight && !found; y += 8) {
        for (let x = 4; x < canvas.clientWidth && !found; x += 8) {
          const box = canvas.getBoundingClientRect();
          canvas.dispatchEvent(new PointerEvent('pointermove',
            { clientX: box.left + x, clientY: box.top + y, bubbles: true }));
          found = document.getElementById('tip').textContent.includes('tokens');
        }
      }
    """)
    assert "Block" in shown.evaluate(text)
    assert "cmpl-" in shown.evaluate(text)
    shown.press(" ", 32)
    shown.wait_for(f"{STATUS} === 'live'")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_can_be_read(shown: Browser, width: int, dark: bool) -> None:
    shown.resize(width, 800, dark)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.evaluate(OUTSIDE) == []
    assert shown.evaluate(CONTRAST) == []
    shown.resize(1280, 800)


def test_an_idle_server_says_what_to_do_and_comes_back(browser: Browser) -> None:
    with serving(extensions=[view]) as server:
        browser.open(f"{server.url}/view")
        browser.wait_for("!document.getElementById('empty').hidden")
        browser.wait_for("document.getElementById('curl').textContent.includes('model')")
        curl = browser.evaluate("document.getElementById('curl').textContent")
        assert f"{server.url}/v1/completions" in curl
        assert '"model":"tiny"' in curl
        port = server.address[1]
    browser.wait_for(f"{STATUS}.includes('no connection')")
    with serving({"port": port}, extensions=[view]) as server:
        browser.wait_for(f"{STATUS} === 'live'")
        server.post("/v1/completions", {"prompt": "a", "max_tokens": 3, "ignore_eos": True})
        browser.wait_for(HAS_STEPS)
        browser.wait_for("document.getElementById('empty').hidden")


def test_a_key_is_asked_for(browser: Browser) -> None:
    enter = """
      document.getElementById('key').value = KEY;
      document.getElementById('key-form').requestSubmit();
    """
    is_open = "document.getElementById('key-dialog').open"
    with serving({"api_keys": ("secret",)}, extensions=[view]) as server:
        browser.open(f"{server.url}/view")
        browser.wait_for(is_open)
        browser.evaluate(enter.replace("KEY", "'wrong'"))
        browser.wait_for(f"{is_open} && document.getElementById('key-error').textContent")
        browser.evaluate(enter.replace("KEY", "'secret'"))
        browser.wait_for(f"{STATUS} === 'live'")
        browser.open("about:blank")
        browser.open(f"{server.url}/view#key=secret")
        browser.wait_for(f"{STATUS} === 'live'")
        browser.wait_for(f"location.href === {server.url + '/view'!r}")
        browser.wait_for("document.getElementById('curl').textContent.includes('$API_KEY')")


def test_a_recorded_run_is_played(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / RECORDING).write_bytes(record(crowded(), seed=4))
    page = tmp_path / "run.html"
    page.write_text(make_page(tmp_path))
    browser.open(page)
    browser.wait_for(f"{POSITION}.startsWith('step 0 of')")
    browser.press("End", 35)
    browser.wait_for("document.querySelectorAll('#events li').length > 3")
    browser.press("Home", 36)
    browser.wait_for(f"{POSITION}.startsWith('step 0 of')")
    browser.press(" ", 32)
    browser.wait_for("Number(document.getElementById('slider').value) >= 3")
    browser.press(" ", 32)
    assert browser.evaluate(f"{COLOURS}('blocks')") >= 3
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
