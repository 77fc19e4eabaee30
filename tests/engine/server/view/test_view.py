"""The live view over HTTP: who may see it, what is told, and that nobody waits for a viewer."""

import logging
import re

import pytest

from engine.server.view.page import live_page, policy
from tests.engine.server.serving import serving
from tests.engine.server.view.watching import KeptView, watching

PROMPT = "a beginning that several requests have in common, " * 4
SLOW = {"step_s": 0.004, "num_blocks": 60}


def ask(server, number, max_tokens=12):
    body = {"prompt": f"{PROMPT}{number}", "max_tokens": max_tokens, "ignore_eos": True}
    status, answer = server.post("/v1/completions", body)
    assert status == 200, answer


def test_a_viewer_is_told_of_requests_steps_and_blocks():
    kept = KeptView()
    with serving(extensions=[kept], **SLOW) as server, watching(server) as watcher:
        assert watcher.hello["num_kv_blocks"] == 60
        assert watcher.hello["block_size"] == 16
        for number in range(3):
            ask(server, number)
        watcher.until_ended(3)
        viewer = watcher.viewer
        assert [reason for _, reason in viewer.events] == ["length"] * 3
        assert {facts.max_tokens for facts in viewer.facts.values()} == {12}
        assert not viewer.running
        assert not viewer.tables
        assert set(viewer.states) == {0, 1}  # cached prefixes, all of them free
        told = [tick for tick in watcher.ticks if tick["itl"] or tick["ttft"]]
        assert sum(len(tick["ttft"]) for tick in told) == 3
        assert all(0 < median <= p99 for _, median, p99 in (t["itl"] for t in told if t["itl"]))
        assert watcher.ticks[-1]["totals"][2] >= 3 * 11


def test_two_viewers_are_told_alike_and_the_last_one_to_leave_ends_it():
    kept = KeptView()
    with serving(extensions=[kept], **SLOW) as server:
        ask(server, 0)
        assert set(kept.details) == {None}
        with watching(server) as first:
            ask(server, 1)
            with watching(server) as second:
                ask(server, 2)
                second.until_ended(1)
                first.until_ended(2)
                assert second.viewer.states == first.viewer.states
            server.wait_for(lambda: kept.feed.num_viewers == 1)
            assert any(detail is not None for detail in kept.details)
        server.wait_for(lambda: kept.feed.num_viewers == 0)
        # What the feed has asked the core for on its way out comes before anything asked for now.
        server.on_loop(server.llm.call("block_usage"))
        kept.details.clear()
        ask(server, 3)
        assert kept.details
        assert set(kept.details) == {None}


def test_the_page_is_open_and_what_it_shows_needs_a_key():
    with serving({"api_keys": ("secret",)}, extensions=[KeptView()]) as server:
        status, headers, page = server.request("GET", "/view")
        assert status == 200
        assert headers["content-type"].startswith("text/html")
        assert b"secret" not in page
        assert server.request("GET", "/view/events")[0] == 401
        wrong = {"Authorization": "Bearer other"}
        assert server.request("GET", "/view/events", headers=wrong)[0] == 401
        with watching(server, Authorization="Bearer secret") as watcher:
            assert watcher.hello["needs_key"] is True


def test_a_key_in_the_address_is_not_logged(caplog):
    caplog.set_level(logging.DEBUG)
    with serving({"api_keys": ("secret",), "access_log": True}, extensions=[KeptView()]) as server:
        # uvicorn's loggers tell nobody above them
        logging.getLogger("uvicorn.access").addHandler(caplog.handler)
        assert server.request("GET", "/view?key=secret")[0] == 200
    assert "/view" in caplog.text
    assert "secret" not in caplog.text


def test_a_server_that_ends_sends_its_viewers_away():
    with serving(extensions=[KeptView()], **SLOW) as server, watching(server) as watcher:
        ask(server, 0)
        server.request_stop()
        while watcher.next():
            pass
        server.join()
        assert watcher.num_ended == 1


def test_what_the_browser_may_do():
    with serving(extensions=[KeptView()]) as server:
        _, headers, page = server.request("GET", "/view")
    told = headers["content-security-policy"]
    assert told.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'self'" in told
    assert "frame-ancestors 'none'" in told
    assert "unsafe" not in told
    assert headers["x-content-type-options"] == "nosniff"
    assert page.decode() == live_page()


def test_the_page_is_whole_in_itself():
    page = live_page()
    assert "{{" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert not re.findall(r"https?://", page)
    assert page.count("<script>") == page.count("</script>") == 1
    assert "'none'" in policy("'none'")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_only_shows(method):
    with serving(extensions=[KeptView()]) as server:
        assert server.request(method, "/view", {})[0] == 405
