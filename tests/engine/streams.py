"""Reading the streams of an AsyncLLM in tests, and looking for what they leave behind."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest

from engine.async_llm import AsyncLLM
from engine.outputs import RequestOutput
from workbench.sampling_params import RequestOutputKind, SamplingParams

DELTA = RequestOutputKind.DELTA
FINAL = RequestOutputKind.FINAL_ONLY
CUMULATIVE = RequestOutputKind.CUMULATIVE
ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def ask(max_tokens: int = 8, **fields: Any) -> SamplingParams:
    return SamplingParams(**({"max_tokens": max_tokens, "output_kind": DELTA} | fields))


async def collect(stream: AsyncGenerator[RequestOutput, None]) -> list[RequestOutput]:
    return [output async for output in stream]


def joined(outputs: Sequence[RequestOutput], index: int = 0) -> tuple[str, list[int]]:
    """Text and tokens of one answer, of its pieces."""
    pieces = [each for output in outputs for each in output.outputs if each.index == index]
    return "".join(p.text for p in pieces), [i for p in pieces for i in p.token_ids]


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until something holds; the test's own limit bounds the wait."""
    while not condition():
        await asyncio.sleep(0)


async def check_clean(llm: AsyncLLM) -> None:
    """Nothing is left of any request, here and in the core."""
    books = llm._open
    assert len(books) == len(books._remote) == len(books._by_core_id) == 0
    processor = books._processor
    assert not processor._parents
    assert not processor._answers
    assert not processor._watched
    left: Any = None
    while left is None or left["unfinished"] or left["steps_in_flight"]:
        left = await llm.call("check_integrity")
    assert left["requests"] == 0
    assert (await llm.call("block_usage"))[0] == 0
