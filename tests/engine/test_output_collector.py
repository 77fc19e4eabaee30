"""Outputs that wait to be fetched: merged, in order, and never lost."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import EngineDeadError
from engine.output_collector import OutputCollector
from engine.outputs import CompletionOutput, Logprob, RequestOutput
from workbench.sampling_params import RequestOutputKind


def piece(index: int, start: int, count: int, is_last: bool = False) -> CompletionOutput:
    """Tokens start … of one answer."""
    ids = list(range(start, start + count))
    return CompletionOutput(
        index,
        "".join(chr(65 + i % 26) for i in ids),
        ids,
        -float(start + count),
        [{i: Logprob(-1.0)} for i in ids],
        "length" if is_last else None,
    )


def output(answers: list[CompletionOutput], is_finished: bool = False) -> RequestOutput:
    return RequestOutput("r", "p", [1], None, answers, is_finished, num_cached_tokens=3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), num_answers=st.integers(1, 4))
def test_pieces_joined_are_the_whole_whenever_they_are_fetched(seed: int, num_answers: int) -> None:
    draw = random.Random(seed)

    async def body() -> None:
        collector = OutputCollector(RequestOutputKind.DELTA)
        lengths = [draw.randint(1, 12) for _ in range(num_answers)]
        done = [0] * num_answers
        got: list[RequestOutput] = []
        while done != lengths:
            changed = [
                i for i in range(num_answers) if done[i] < lengths[i] and draw.random() < 0.6
            ]
            answers = []
            for i in changed:
                count = draw.randint(1, lengths[i] - done[i])
                answers.append(piece(i, done[i], count, done[i] + count == lengths[i]))
                done[i] += count
            if answers:
                collector.put(output(answers, done == lengths))
                if draw.random() < 0.4:
                    got.append(await collector.get())
        if not got or not got[-1].finished:
            got.append(await collector.get())
        assert [each.finished for each in got] == [False] * (len(got) - 1) + [True]
        for i in range(num_answers):
            told = [answer for each in got for answer in each.outputs if answer.index == i]
            whole = piece(i, 0, lengths[i], is_last=True)
            assert "".join(answer.text for answer in told) == whole.text
            assert [t for answer in told for t in answer.token_ids] == whole.token_ids
            assert [p for answer in told for p in answer.logprobs or ()] == whole.logprobs
            assert told[-1].cumulative_logprob == whole.cumulative_logprob
            assert told[-1].finish_reason == "length"
        for each in got:
            indices = [answer.index for answer in each.outputs]
            assert indices == sorted(set(indices))

    asyncio.run(body())


def test_of_everything_so_far_the_latest_counts() -> None:
    async def body() -> None:
        collector = OutputCollector(RequestOutputKind.CUMULATIVE)
        collector.put(output([piece(0, 0, 1), piece(1, 0, 1)]))
        collector.put(output([piece(1, 0, 4, is_last=True)]))
        got = await collector.get()
        assert [len(answer.token_ids) for answer in got.outputs] == [1, 4]

    asyncio.run(body())


def test_an_output_is_fetched_before_the_death_of_the_core_is_told() -> None:
    async def body() -> None:
        collector = OutputCollector(RequestOutputKind.DELTA)
        waiting = asyncio.create_task(collector.get())
        await asyncio.sleep(0)
        collector.put(output([piece(0, 0, 2)]))
        collector.fail(EngineDeadError("it died"))
        assert (await waiting).outputs[0].token_ids == [0, 1]
        with pytest.raises(EngineDeadError, match="it died"):
            await collector.get()

    asyncio.run(body())
