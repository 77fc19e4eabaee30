"""What AsyncLLM takes and refuses, and the text work that it does beside its event loop."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from engine.async_llm import AsyncLLM
from engine.errors import InputError
from engine.model_text import ModelText
from engine.remote_request import RemoteRequest
from engine.request_preparer import (
    FEW_TOKENS,
    LONG_TEXT,
    MOST_CHARACTERS,
    NUM_LONG_TEXTS,
    RequestPreparer,
)
from tests.engine.served import EOS, ids_of, model_text, run
from tests.engine.streams import (
    FINAL,
    ask,
    check_clean,
    collect,
    joined,
)
from workbench.sampling_params import SamplingParams


def test_what_cannot_be_served_is_refused_before_it_is_handed_in() -> None:
    async def body(llm: AsyncLLM) -> None:
        bad: list[tuple[Coroutine[Any, Any, Any], str]] = [
            (llm.prepare("r", [1] * 64, ask()), "the prompt has 64 tokens and max_model_len=64"),
            (llm.prepare("r", [1] * 50, ask()), "a prompt of 50 tokens exceeds the whole KV cache"),
            (llm.prepare("r", [], ask()), "the prompt is empty"),
            (llm.prepare("r", [1, 300], ask()), "the token id 300"),
            (llm.prepare("r", "a", ask(), priority="x"), "priority='x'"),
            (llm.prepare("r", "a", ask(), client_id=7), "client_id=7"),
            (llm.prepare("r", "a", ask(), session_id="\ud800"), "cannot be sent to the engine"),
            (llm.prepare("r", "a", ask(top_k=2**70)), "cannot be sent to the engine"),
            (llm.prepare("r", "a", ask(n=5000)), "n=5000 exceeds"),
            (llm.prepare("r", "a", {}), "must be a SamplingParams"),
        ]
        for prepare, message in bad:
            with pytest.raises(InputError, match=message):
                await prepare
        await check_clean(llm)
        assert llm.is_alive

    run(body, max_model_len=64, num_blocks=3)


def test_text_is_made_and_read_off_the_loop() -> None:
    async def body(llm: AsyncLLM) -> None:
        ids = await llm.tokenize("häh?")
        assert ids == list(ids_of("häh?"))
        assert await llm.detokenize([*ids, EOS]) == "häh?<|eos|>"
        assert await llm.detokenize([*ids, EOS], skip_special_tokens=True) == "häh?"
        with pytest.raises(InputError, match="the token id 999"):
            await llm.detokenize([999])
        messages = [{"role": "user", "content": "hi"}]
        assert await llm.render_chat(messages, add_generation_prompt=False) == "user: hi\n"
        with pytest.raises(InputError, match="the chat template refuses"):
            await llm.render_chat(messages, chat_template="{{ 1 / 0 }}")

    run(body)


def test_without_a_tokenizer_there_are_token_ids() -> None:
    async def body(llm: AsyncLLM) -> None:
        outputs = await collect(llm.generate([5, 6], ask(4), "r"))
        assert joined(outputs) == ("", [5, 6, 5, 6])
        for text in (llm.tokenize("x"), llm.detokenize([1]), llm.render_chat([])):
            with pytest.raises(InputError, match="has no tokenizer"):
                await text

    run(body, text=ModelText())


def test_the_front_may_be_asked_for_a_default() -> None:
    async def body(llm: AsyncLLM) -> None:
        (output,) = await collect(llm.generate("ab", None, "r"))
        assert output.outputs[0].text == "aba"
        assert llm.tokenizer is llm.text.tokenizer

    text = model_text()
    params = SamplingParams(max_tokens=3, output_kind=FINAL)
    chosen = ModelText(tokenizer=text.tokenizer, eos=text.eos, default_params=params)
    run(body, text=chosen)


def test_numbers_of_numpy_are_numbers() -> None:
    async def body(llm: AsyncLLM) -> None:
        params = ask(np.int64(4), seed=np.int32(7))
        prompt = [np.int64(5), np.int32(6)]
        outputs = await collect(llm.generate(prompt, params, "r", priority=np.int64(1)))
        assert joined(outputs)[1] == [5, 6, 5, 6]

    run(body)


def test_a_short_text_does_not_wait_for_a_book() -> None:
    async def body(llm: AsyncLLM) -> None:
        is_read = threading.Event()
        # all but one of the places are taken
        for _ in range(NUM_LONG_TEXTS - 1):
            llm._preparer._long_threads.submit(is_read.wait, 60)
        assert len(await llm.tokenize("word " * 20_000)) == 100_000
        llm._preparer._long_threads.submit(is_read.wait, 60)
        book = asyncio.create_task(llm.tokenize("word " * 20_000))
        assert await llm.tokenize("ab") == list(ids_of("ab"))
        assert not book.done()
        is_read.set()
        assert len(await book) == 100_000

    run(body)


def test_a_text_that_is_far_too_long_is_refused_before_it_is_tokenized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(llm: AsyncLLM) -> None:
        monkeypatch.delattr(RequestPreparer, "_run")
        text = "a" * (MOST_CHARACTERS + 1)
        cut = ask(truncate_prompt_tokens=5)
        for work in (
            llm.tokenize(text),
            llm.prepare("r", text, cut),
            llm.prepare("r", {"prompt": text}, cut),
        ):
            with pytest.raises(InputError, match="has 1000001 characters, and at most 1000000"):
                await work

    run(body)


def test_what_costs_time_for_each_token_is_done_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places: list[str] = []
    encoded = RequestPreparer._encoded

    def watched(preparer: RequestPreparer, request: RemoteRequest) -> bytes:
        places.append(threading.current_thread().name.partition("_")[0])
        return encoded(preparer, request)

    async def body(llm: AsyncLLM) -> None:
        loop = threading.current_thread().name
        for num_tokens, n, place in (
            (10, 1, loop),
            (FEW_TOKENS + 1, 1, "text"),
            (FEW_TOKENS // 4, 5, "text"),
            (LONG_TEXT, 2, "long-text"),
        ):
            places.clear()
            await llm.prepare("r", [65] * num_tokens, ask(n=n))
            assert places == [place] * n

    monkeypatch.setattr(RequestPreparer, "_encoded", watched)
    run(body, max_model_len=2 * LONG_TEXT, num_blocks=2 * LONG_TEXT // 16)
