"""The outputs of one HTTP request, which may be several requests of the engine.

Runs them side by side and ends all of them when one fails. Knows no form of answers.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from engine.async_llm import AsyncLLM, Prepared
from engine.errors import EngineDeadError
from engine.outputs import RequestOutput
from engine.server.errors import ApiError, param_of
from workbench.sampling_params import SamplingParams

Placed = tuple[int, RequestOutput]
"""The place of a prompt in its HTTP request, and an output of it."""


async def final_outputs(llm: AsyncLLM, prepared: Sequence[Prepared]) -> list[RequestOutput]:
    """The last output of each request, in their order.

    Raises:
        ApiError, EngineDeadError …: Of the first that failed; the others are ended.
    """
    if len(prepared) == 1:
        return [await _final(llm, prepared[0])]
    tasks = [asyncio.ensure_future(_final(llm, each)) for each in prepared]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _end(tasks)


async def merged_outputs(
    llm: AsyncLLM, prepared: Sequence[Prepared]
) -> AsyncGenerator[list[Placed], None]:
    """The outputs of all requests as they come; those that are ready together come together.

    Raises:
        ApiError, EngineDeadError …: Of the first that failed; the others are ended.
    """
    if len(prepared) == 1:
        async with aclosing(llm.stream(prepared[0])) as stream:
            async for output in stream:
                check_answers(prepared[0], output)
                yield [(0, output)]
        return
    # bounded, so that a slow client's outputs are merged where they come from
    queue: asyncio.Queue[Placed | BaseException | None] = asyncio.Queue(len(prepared))
    tasks = [
        asyncio.ensure_future(_pump(llm, place, each, queue)) for place, each in enumerate(prepared)
    ]
    try:
        num_open = len(tasks)
        while num_open:
            ready = [await queue.get()]
            while not queue.empty():
                ready.append(queue.get_nowait())
            failed = next((item for item in ready if isinstance(item, BaseException)), None)
            if failed is not None:
                raise failed
            num_open -= ready.count(None)
            outputs = [item for item in ready if isinstance(item, tuple)]
            if outputs:
                yield outputs
    finally:
        await _end(tasks)


def check_answers(prepared: Prepared, output: RequestOutput) -> None:
    """Raise what an answer of the output failed by.

    Raises:
        ApiError: 400 where the request is to blame: the engine refused it before it ran, or it
            allows no token at all; 500 where the engine failed.
    """
    for answer in output.outputs:
        if answer.finish_reason == "error":
            reason = str(answer.stop_reason or "the engine failed at this request")
            is_theirs = _never_ran(output) or _may_allow_nothing(prepared.params)
            raise ApiError(400 if is_theirs else 500, reason, param_of(reason))


def _never_ran(output: RequestOutput) -> bool:
    return output.metrics is not None and output.metrics.scheduled_ts is None


def _may_allow_nothing(params: SamplingParams) -> bool:
    """Whether a request's own limits could leave no token to choose from."""
    return bool(params.structured_outputs or params.allowed_token_ids or params.bad_words)


async def _final(llm: AsyncLLM, prepared: Prepared) -> RequestOutput:
    last = None
    async with aclosing(llm.stream(prepared)) as stream:
        async for output in stream:
            last = output
    if last is None:
        raise EngineDeadError(f"the engine gave no output for {prepared.request_id!r}")
    check_answers(prepared, last)
    return last


async def _pump(
    llm: AsyncLLM,
    place: int,
    prepared: Prepared,
    queue: "asyncio.Queue[Placed | BaseException | None]",
) -> None:
    try:
        async with aclosing(llm.stream(prepared)) as stream:
            async for output in stream:
                check_answers(prepared, output)
                await queue.put((place, output))
    except asyncio.CancelledError:
        raise
    except Exception as error:
        await queue.put(error)
    else:
        await queue.put(None)


async def _end(tasks: Sequence["asyncio.Task[None] | asyncio.Task[RequestOutput]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
