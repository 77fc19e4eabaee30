"""What listeners of an AsyncLLM hear."""

import asyncio
from typing import Any

import pytest

from engine.async_llm import AsyncLLM
from engine.errors import EngineDeadError
from engine.request_listener import RequestListener, RequestRecord
from tests.engine.served import run
from tests.engine.streams import (
    FINAL,
    ask,
    collect,
    joined,
    until,
)
from workbench.sampling_params import SamplingParams


class Recorder(RequestListener):
    """Writes everything down."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[str, int]] = []
        self.tokens: list[tuple[str, int, bool]] = []
        self.records: list[RequestRecord] = []
        self.steps: list[Any] = []
        self.cores: list[str] = []

    def on_arrival(self, request_id: str, num_prompt_tokens: int, params: SamplingParams) -> None:
        self.arrivals.append((request_id, num_prompt_tokens))

    def on_step(self, stats: Any, detail: Any) -> None:
        self.steps.append(stats)

    def on_tokens(self, request_id: str, num_new: int, now: float, is_first: bool) -> None:
        self.tokens.append((request_id, num_new, is_first))

    def on_finished(self, record: RequestRecord) -> None:
        self.records.append(record)

    def on_core_dead(self, reason: str) -> None:
        self.cores.append("dead")

    def on_core_ready(self) -> None:
        self.cores.append("ready")


def test_listeners_hear_the_life_of_every_request() -> None:
    async def body(llm: AsyncLLM) -> None:
        heard = Recorder()
        llm.add_listener(heard)
        await collect(llm.generate("abc", ask(5, n=2), "two", client_id="c", priority=0))
        await collect(llm.generate("abc", ask(3, output_kind=FINAL), "final"))
        stream = llm.generate("abc", ask(1900), "left")
        await anext(stream)
        await stream.aclose()
        last = asyncio.create_task(collect(llm.generate("abc", ask(1900), "dead")))
        await until(lambda: len(heard.arrivals) == 4)
        llm.kill_core()
        await llm.wait_dead()
        await llm.restart()
        await asyncio.wait([last])
        assert isinstance(last.exception(), EngineDeadError)
        assert [name for name, _ in heard.arrivals] == ["two", "final", "left", "dead"]
        assert {count for _, count in heard.arrivals} == {3}
        assert sum(count for name, count, _ in heard.tokens if name == "two") == 10
        assert [first for name, _, first in heard.tokens if name == "two"].count(True) == 1
        two, final, left, dead = heard.records
        assert (two.num_output_tokens, two.finish_reasons) == (10, ("length", "length"))
        assert (two.client_id, two.params.n, two.num_prompt_tokens) == ("c", 2, 3)
        assert final.finish_reason == "length"
        assert left.finish_reason == "abort"
        assert dead.finish_reason == "error"
        assert "killed" in (dead.detail or "")
        for record in (two, final):
            assert record.scheduled_time is not None
            assert record.first_token_time is not None
            assert record.last_token_time is not None
            assert record.arrival_time <= record.scheduled_time <= record.first_token_time
            assert record.first_token_time <= record.last_token_time <= record.finish_time
        assert [s.step for s in heard.steps[:5]] == sorted(s.step for s in heard.steps[:5])
        assert heard.cores == ["dead", "ready"]

    run(body, step_s=0.0005)


def test_a_listener_that_raises_is_heard_of_once(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(RequestListener):
        def on_tokens(self, request_id: str, num_new: int, now: float, is_first: bool) -> None:
            raise RuntimeError("no")

    async def body(llm: AsyncLLM) -> None:
        llm.add_listener(Broken())
        assert joined(await collect(llm.generate("ab", ask(4), "r")))[0] == "abab"

    run(body)
    assert caplog.text.count("Broken raised and hears no more") == 1


def test_steps_are_told_in_detail_while_somebody_watches() -> None:
    class Details(RequestListener):
        def __init__(self) -> None:
            self.details: list[Any] = []

        def on_step(self, stats: Any, detail: Any) -> None:
            if detail is not None:
                self.details.append(detail)

    async def body(llm: AsyncLLM) -> None:
        heard = Details()
        llm.add_listener(heard)
        await collect(llm.generate("ab", ask(4), "r"))
        assert not heard.details
        await llm.call("watch", True)
        await collect(llm.generate("ab", ask(4), "r"))
        assert heard.details[0].is_first
        await llm.call("watch", False)

    run(body, step_s=0.001)
