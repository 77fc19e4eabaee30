"""AsyncLLM around a scripted model in a thread: prompts in, streams out."""

import asyncio
from contextlib import aclosing

import pytest

from engine.async_llm import AsyncLLM
from engine.errors import InputError
from tests.engine.served import EOS, ids_of, run
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
from workbench.sampling_params import RequestOutputKind


@ASYNC
def test_an_answer_comes_piece_by_piece_and_in_order(is_async: bool) -> None:
    async def body(llm: AsyncLLM) -> None:
        outputs = await collect(llm.generate("abc", ask(7), "r"))
        assert joined(outputs) == ("abcabca", list(ids_of("abcabca")))
        assert [output.finished for output in outputs[:-1]] == [False] * (len(outputs) - 1)
        last = outputs[-1]
        assert last.finished
        assert last.outputs[0].finish_reason == "length"
        assert last.prompt == "abc"
        assert last.metrics is not None
        times = last.metrics
        assert times.scheduled_ts is not None
        assert times.first_token_ts is not None
        assert times.last_token_ts is not None
        assert times.arrival_time <= times.scheduled_ts <= times.first_token_ts
        assert times.first_token_ts <= times.last_token_ts
        assert times.num_generation_tokens == 7
        await check_clean(llm)

    run(body, async_scheduling=is_async)


def test_thousands_of_streams_are_complete_and_in_order() -> None:
    async def one(llm: AsyncLLM, number: int) -> None:
        text = f"{number:04d}"
        outputs = await collect(llm.generate(text, ask(4 + number % 9), f"r{number}"))
        assert joined(outputs)[0] == (text * 4)[: 4 + number % 9]
        assert [output.finished for output in outputs].count(True) == 1

    async def body(llm: AsyncLLM) -> None:
        await asyncio.gather(*(one(llm, number) for number in range(2000)))
        await check_clean(llm)

    run(body, max_num_seqs=256)


def test_the_end_of_sequence_token_has_no_text_and_no_stop_reason() -> None:
    async def body(llm: AsyncLLM) -> None:
        outputs = await collect(llm.generate("x", ask(20), "r"))
        assert joined(outputs) == ("Hello!", [*ids_of("Hello!"), EOS])
        answer = outputs[-1].outputs[0]
        assert (answer.finish_reason, answer.stop_reason) == ("stop", None)

    run(body, script="hello")


@ASYNC
def test_a_stop_string_ends_the_request_in_the_core(is_async: bool) -> None:
    async def body(llm: AsyncLLM) -> None:
        outputs = await collect(llm.generate("x", ask(2000, stop=[" 7 "]), "r"))
        assert joined(outputs)[0] == " 0 1 2 3 4 5 6"
        answer = outputs[-1].outputs[0]
        assert (answer.finish_reason, answer.stop_reason) == ("stop", " 7 ")
        await check_clean(llm)
        assert llm.stats is not None

    run(body, script="count_up", async_scheduling=is_async, step_s=0.001)


@pytest.mark.parametrize("kind", [FINAL, CUMULATIVE, DELTA])
def test_several_answers_share_a_prompt(kind: RequestOutputKind) -> None:
    async def body(llm: AsyncLLM) -> None:
        outputs = await collect(llm.generate("abc", ask(5, n=3, output_kind=kind, logprobs=1), "r"))
        last = outputs[-1]
        if kind is FINAL:
            assert len(outputs) == 1
            assert [answer.index for answer in last.outputs] == [0, 1, 2]
        for index in range(3):
            if kind is DELTA:
                assert joined(outputs, index) == ("abcab", list(ids_of("abcab")))
            else:
                ends = [a for o in outputs for a in o.outputs if a.index == index]
                assert ends[-1].text == "abcab"
                assert ends[-1].finish_reason == "length"
        assert last.metrics is not None
        assert last.metrics.num_generation_tokens == 15
        await check_clean(llm)

    run(body)


def test_log_probabilities_of_prompt_and_answer_arrive() -> None:
    async def body(llm: AsyncLLM) -> None:
        params = ask(3, logprobs=2, prompt_logprobs=1)
        outputs = await collect(llm.generate("abcd", params, "r"))
        a, b, c, d = ids_of("abcd")
        told = [position for output in outputs for position in output.outputs[0].logprobs or ()]
        assert [next(iter(position)) for position in told] == [a, b, c]
        assert told[0][a].decoded_token == "a"
        assert told[0][a].logprob == -0.5
        assert outputs[-1].outputs[0].cumulative_logprob == -1.5
        prompt = outputs[-1].prompt_logprobs
        assert prompt is not None
        assert prompt[0] is None
        assert [next(iter(position)) for position in prompt if position] == [b, c, d]

    run(body, max_num_batched_tokens=3, max_model_len=64)


def test_a_slow_reader_gets_bigger_pieces_and_loses_nothing() -> None:
    async def body(llm: AsyncLLM) -> None:
        params = ask(300, logprobs=0, n=2)
        async with aclosing(llm.generate("abcdef", params, "r")) as stream:
            first = await anext(stream)
            await until(lambda: llm.num_unfinished_requests == 0)
            rest = await collect(stream)
        assert len(rest) == 1
        assert rest[0].finished
        for index in range(2):
            assert joined([first, *rest], index)[0] == "abcdef" * 50
            answer = rest[0].outputs[index]
            assert len(answer.logprobs or ()) == len(answer.token_ids)
            assert answer.cumulative_logprob == -150.0

    run(body)


def test_a_slow_reader_of_everything_so_far_gets_the_latest() -> None:
    async def body(llm: AsyncLLM) -> None:
        params = ask(100, output_kind=CUMULATIVE)
        async with aclosing(llm.generate("ab", params, "r")) as stream:
            first = await anext(stream)
            await until(lambda: llm.num_unfinished_requests == 0)
            rest = await collect(stream)
        assert first.outputs[0].text == ("ab" * 50)[: len(first.outputs[0].text)]
        assert [output.outputs[0].text for output in rest] == ["ab" * 50]

    run(body)


def test_an_id_in_use_is_refused_and_a_prepared_request_streams_once() -> None:
    async def body(llm: AsyncLLM) -> None:
        stream = llm.generate("abc", ask(1900), "r")
        await anext(stream)
        with pytest.raises(InputError, match="request_id='r' is in use"):
            await collect(llm.generate("abc", ask(), "r"))
        await stream.aclose()
        prepared = await llm.prepare("again", "abc", ask())
        await collect(llm.stream(prepared))
        with pytest.raises(InputError, match="streamed before"):
            await collect(llm.stream(prepared))
        await check_clean(llm)

    run(body, step_s=0.001)


def test_a_request_that_fails_in_the_model_ends_alone() -> None:
    async def body(llm: AsyncLLM) -> None:
        outputs = await collect(llm.generate("x", ask(9), "r"))
        answer = outputs[-1].outputs[0]
        assert (answer.finish_reason, answer.stop_reason) == (
            "error",
            "the logits are not a number",
        )
        assert joined(outputs)[0] == "AA"
        assert llm.is_alive
        await check_clean(llm)

    run(body, script="nan_third")


def test_the_core_can_be_called_between_steps() -> None:
    async def body(llm: AsyncLLM) -> None:
        await collect(llm.generate("x" * 100, ask(2), "r"))
        assert (await collect(llm.generate("x" * 100, ask(2), "r")))[-1].num_cached_tokens == 96
        assert await llm.call("reset_prefix_cache") is True
        assert (await collect(llm.generate("x" * 100, ask(2), "r")))[-1].num_cached_tokens == 0
        with pytest.raises(InputError, match="no call 'format_disk': there are block_usage"):
            await llm.call("format_disk")
        with pytest.raises(InputError, match="watch failed: TypeError"):
            await llm.call("watch", 1, 2, 3)
        assert llm.is_alive

    run(body)


def test_priority_and_waiting_time_reach_the_scheduler() -> None:
    async def body(llm: AsyncLLM) -> None:
        order: list[str] = []

        async def one(name: str, priority: int) -> None:
            await collect(llm.generate("x", ask(3), name, priority=priority))
            order.append(name)

        first = asyncio.create_task(one("first", 0))
        await until(lambda: llm.stats is not None and llm.stats.num_running == 1)
        later = [asyncio.create_task(one(name, p)) for name, p in (("low", 9), ("high", 1))]
        await asyncio.wait([first, *later])
        assert order == ["first", "high", "low"]

    run(body, max_num_seqs=1, policy="priority", step_s=0.02)


def test_grammars_are_compiled_and_followed_in_the_core() -> None:
    async def body(llm: AsyncLLM) -> None:
        fits = ask(20, structured_outputs={"regex": "Hel*o!"})
        outputs = await collect(llm.generate("x", fits, "fits"))
        assert joined(outputs)[0] == "Hello!"
        assert outputs[-1].outputs[0].finish_reason == "stop"
        # the scripted model does not look at what it may say
        outputs = await collect(
            llm.generate("x", ask(structured_outputs={"choice": ["Bye"]}), "no")
        )
        answer = outputs[-1].outputs[0]
        assert answer.finish_reason == "error"
        assert isinstance(answer.stop_reason, str)
        for number in (1, 3):
            bad = ask(structured_outputs={"regex": "("}, n=number)
            with pytest.raises(InputError, match=r"^structured_outputs\.regex does not compile"):
                await collect(llm.generate("x", bad, "bad"))
        await check_clean(llm)

    run(body, script="hello", has_grammars=True)
