"""What is told to viewers who come late, are slow, or outlive a core."""

import asyncio
import json
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core_messages import StepStats
from engine.errors import EngineDeadError
from engine.server.view import feed as feeds
from engine.server.view.feed import MOST_BEHIND, Viewer, ViewFeed
from engine.server.view.latencies import Latencies, gap_summary
from engine.step_messages import StepDetail

INFO = SimpleNamespace(
    pid=7, num_kv_blocks=10, block_size=16, max_num_seqs=4, max_num_batched_tokens=64
)


class FakeLLM:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.info = INFO
        self.calls: list[tuple[Any, ...]] = []
        self.is_dead = False

    async def call(self, *call: Any) -> None:
        self.calls.append(call)
        if self.is_dead:
            raise EngineDeadError("gone")


def stats(step: int) -> StepStats:
    return StepStats(step, 1.0, 0.5, 1, 0, 3, 9, 8, 1, [], 0, 0, 0, 0, 0, 0)


def detail(step: int, is_first: bool = False) -> StepDetail:
    return StepDetail(step, is_first, [], [], [], [], [], [])


def events_in(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    events = []
    for event in data.decode().split("\n\n"):
        if event:
            kind, content = event.split("\n")
            told = json.loads(content.removeprefix("data: "))
            events.append((kind.removeprefix("event: "), told))
    return events


def steps_of(data: bytes) -> list[int]:
    ticks = [content for kind, content in events_in(data) if kind == "tick"]
    return [numbers[0] for tick in ticks for numbers, _ in tick["steps"]]


def run(body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with a feed that ticks as fast as it can."""
    monkeypatch.setattr(feeds, "TICK_S", 0.0)

    async def bounded() -> None:
        async with asyncio.timeout(20):
            llm = FakeLLM()
            await body(ViewFeed(llm, {"title": "x"}, lambda: False), llm)

    asyncio.run(bounded())


def test_a_viewer_who_comes_late_gets_no_details_before_all_is_told_anew(monkeypatch):
    async def body(feed: ViewFeed, llm: FakeLLM) -> None:
        async with aclosing(feed.events()) as events:
            kind, hello = events_in(await anext(events))[0]
            assert (kind, hello["num_kv_blocks"]) == ("hello", 10)
            coming = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            feed.on_step(stats(3), detail(3))
            assert steps_of(await coming) == []
            coming = asyncio.ensure_future(anext(events))
            feed.on_step(stats(4), detail(4))
            feed.on_step(stats(5), detail(5, is_first=True))
            feed.on_step(stats(6), None)
            feed.on_step(stats(7), detail(7))
            assert steps_of(await coming) == [5, 7]
        await asyncio.sleep(0)
        assert llm.calls == [("watch", True), ("watch", False)]
        assert feed.num_viewers == 0

    run(body, monkeypatch)


def test_steps_without_details_are_told_where_there_are_none_with(monkeypatch):
    async def body(feed: ViewFeed, llm: FakeLLM) -> None:
        async with aclosing(feed.events()) as events:
            await anext(events)
            coming = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            feed.on_step(stats(0), detail(0, is_first=True))
            await coming
            for step in range(1, 40):
                feed.on_step(stats(step), None)
            told = await anext(events)
            assert steps_of(told) == [36, 37, 38, 39]
            assert events_in(told)[0][1]["totals"] == [40, 320, 40]

    run(body, monkeypatch)


def test_a_new_core_is_greeted_anew_and_a_dead_one_is_told(monkeypatch):
    async def body(feed: ViewFeed, llm: FakeLLM) -> None:
        async with aclosing(feed.events()) as events:
            hello = events_in(await anext(events))[0][1]
            coming = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            llm.is_dead = True
            feed.on_core_dead("killed by signal 9")
            kind, told = events_in(await coming)[0]
            assert kind == "core"
            assert "signal 9" in told["text"]
            llm.is_dead = False
            feed.on_core_ready()
            told = [content for kind, content in events_in(await anext(events)) if kind == "hello"]
            assert told[0]["instance"] != hello["instance"]
            while llm.calls.count(("watch", True)) < 2:
                await anext(events)

    run(body, monkeypatch)


def test_nothing_is_kept_while_nobody_watches(monkeypatch):
    async def body(feed: ViewFeed, llm: FakeLLM) -> None:
        feed.on_step(stats(0), None)
        feed.on_arrival("a", 3, None)
        feed.on_tokens("a", 1, 2.0, True)
        assert not feed._steps
        assert feed._latencies.take() == {"ttft": [], "itl": None, "ended": []}

    run(body, monkeypatch)


def test_a_slow_viewer_loses_ticks_and_delays_nobody():
    async def body() -> None:
        viewer = Viewer()
        viewer.is_behind = False
        for number in range(MOST_BEHIND):
            viewer.give(b"%d " % number)
        assert not viewer.is_behind
        viewer.give(b"one too many")
        assert viewer.is_behind
        viewer.give(b"news")
        assert await viewer.take() == b"news"

    asyncio.run(body())


def test_gaps_and_first_tokens():
    latencies = Latencies(origin=100.0)
    latencies.arrive("a", 101.0)
    latencies.tokens("a", 1, 103.0, True)
    latencies.tokens("a", 2, 104.0, False)
    latencies.tokens("unknown", 1, 104.0, False)
    latencies.end("a", 3, 103.0, 101.0, 105.0)
    told = latencies.take()
    assert told["ttft"] == [(3.0, 2.0)]
    assert told["itl"] == (1, 0.5, 0.5)
    assert told["ended"] == [{"id": "a", "tokens": 3, "ttft": 2.0, "e2e": 4.0}]
    assert latencies.take() == {"ttft": [], "itl": None, "ended": []}


def test_percentiles_by_nearest_rank():
    assert gap_summary([]) is None
    assert gap_summary([3.0]) == (1, 3.0, 3.0)
    assert gap_summary([float(i) for i in range(200, 0, -1)]) == (200, 100.0, 198.0)
