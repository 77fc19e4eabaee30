"""Readers that leave before the end: their requests end, and nothing is left behind."""

import asyncio
import random
from contextlib import aclosing
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.async_llm import AsyncLLM
from engine.request_listener import RequestListener
from tests.engine.served import run
from tests.engine.streams import (
    ASYNC,
    CUMULATIVE,
    DELTA,
    FINAL,
    ask,
    check_clean,
    collect,
    joined,
    until,
)


@ASYNC
def test_closing_a_stream_frees_its_blocks(is_async: bool) -> None:
    async def body(llm: AsyncLLM) -> None:
        stream = llm.generate("abc" * 20, ask(1900), "r")
        await anext(stream)
        await stream.aclose()
        await check_clean(llm)
        # the id is free again
        assert len(await collect(llm.generate("abc", ask(2), "r"))) > 0

    run(body, async_scheduling=is_async, step_s=0.001)


def test_cancelling_a_reader_ends_its_request_while_it_waits_in_the_queue() -> None:
    async def body(llm: AsyncLLM) -> None:
        running = asyncio.create_task(collect(llm.generate("a", ask(1500), "first")))
        await until(lambda: llm.stats is not None and llm.stats.num_running == 1)
        waiting = asyncio.create_task(collect(llm.generate("b", ask(5), "second")))
        await until(lambda: llm.stats is not None and llm.stats.num_waiting == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await until(lambda: llm.stats is not None and llm.stats.num_waiting == 0)
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])
        await check_clean(llm)

    run(body, max_num_seqs=1, step_s=0.001)


def test_blocks_are_free_two_steps_after_a_reader_has_gone() -> None:
    class Steps(RequestListener):
        def __init__(self) -> None:
            self.used: list[int] = []

        def on_step(self, stats: Any, detail: Any) -> None:
            self.used.append(stats.num_used_blocks)

    async def body(llm: AsyncLLM) -> None:
        steps = Steps()
        llm.add_listener(steps)
        other = asyncio.create_task(collect(llm.generate("b", ask(1000), "other")))
        stream = llm.generate("a" * 160, ask(1000), "r")
        await anext(stream)
        count = len(steps.used)
        await stream.aclose()
        await until(lambda: len(steps.used) >= count + 4)
        # one step may have been under way, the next one starts without the request
        assert max(steps.used[count + 2 :]) < 10
        other.cancel()
        await asyncio.wait([other])
        await check_clean(llm)

    run(body, step_s=0.005)


def test_an_abort_ends_the_stream_with_what_there_is() -> None:
    async def body(llm: AsyncLLM) -> None:
        stream = llm.generate("abc", ask(1900), "r")
        first = await anext(stream)
        await llm.abort(["r", "unknown"])
        await llm.abort("r")
        rest = await collect(stream)
        assert rest[-1].finished
        assert rest[-1].outputs[0].finish_reason == "abort"
        assert joined([first, *rest])[0] == ("abc" * 700)[: len(joined([first, *rest])[0])]
        await check_clean(llm)

    run(body, step_s=0.001)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32), is_async=st.booleans(), num_blocks=st.sampled_from([40, 400]))
def test_readers_that_leave_at_random_leave_nothing_behind(
    seed: int, is_async: bool, num_blocks: int
) -> None:
    draw = random.Random(seed)

    async def read(llm: AsyncLLM, number: int) -> None:
        prompt = "x" * draw.choice([1, 5, 40, 150]) + str(number)
        params = ask(
            draw.randint(1, 60),
            n=draw.choice([1, 1, 3]),
            output_kind=draw.choice([DELTA, FINAL, CUMULATIVE]),
            stop=draw.choice([(), ("x" * 9,)]),
        )
        most = draw.choice([0, 1, 3, 1000])
        async with aclosing(llm.generate(prompt, params, f"r{number}")) as stream:
            count = 0
            async for _ in stream:
                count += 1
                if count > most:
                    break

    async def body(llm: AsyncLLM) -> None:
        tasks = [asyncio.create_task(read(llm, number)) for number in range(60)]
        for task in tasks:
            for _ in range(draw.randint(0, 6)):
                await asyncio.sleep(0)
            how = draw.random()
            if how < 0.3:
                task.cancel()
            elif how < 0.4:
                await llm.abort(f"r{draw.randrange(60)}")
        await asyncio.wait(tasks)
        assert not [t for t in tasks if not t.cancelled() and t.exception() is not None]
        await check_clean(llm)

    run(
        body,
        async_scheduling=is_async,
        num_blocks=num_blocks,
        max_num_seqs=16,
        max_model_len=320,
        max_num_batched_tokens=64,
    )
