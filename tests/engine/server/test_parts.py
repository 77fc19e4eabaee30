"""The parts of the server by themselves."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from engine.core_messages import StepStats
from engine.errors import EngineDeadError, InputError
from engine.outputs import Logprob
from engine.server.chunks import ChunkWriter, usage_tail
from engine.server.disconnect import while_connected
from engine.server.errors import ApiError, as_api_error, error_body, param_of
from engine.server.logprobs import CompletionLogprobs, TokenTexts, chat_logprobs, finite
from engine.server.prompts import split_prompts
from engine.server.sse import EventStream
from engine.server.state import ServerState
from engine.server.supervisor import supervise
from engine.server.token_facts import TokenFacts
from tests.engine.served import demo_tokenizer
from tests.engine.server.listening import record
from workbench.sampling_params import SamplingParams

HEAD = {"id": "a", "model": 'with "quotes"'}


@given(text=st.text(), index=st.integers(0, 2000), numbers=st.tuples(*[st.integers(0, 10**9)] * 2))
def test_a_chunk_is_the_json_of_its_parts(text: str, index: int, numbers: tuple[int, int]) -> None:
    writer = ChunkWriter(HEAD, b'"delta":{"content":', b"}", {"logprobs": None})
    for _ in range(2):
        event = writer.piece(index, text, None, usage_tail(*numbers)).decode()
        assert event.startswith("data: ")
        assert event.endswith("\n\n")
        # no text can end an event
        assert event.count("\n") == 2
        chunk = json.loads(event[6:])
        choice = {"index": index, "delta": {"content": text}, "logprobs": None}
        assert chunk == HEAD | {
            "choices": [choice],
            "usage": {
                "prompt_tokens": numbers[0],
                "total_tokens": sum(numbers),
                "completion_tokens": numbers[1],
            },
        }


def run_stream(pieces: AsyncGenerator[bytes, None]) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    asyncio.run(EventStream(pieces)({"type": "http"}, receive, send))
    return sent


async def failing(after: int, error: Exception) -> AsyncGenerator[bytes, None]:
    for _ in range(after):
        yield b"data: 1\n\n"
    raise error


def test_an_error_after_the_first_event_is_an_event() -> None:
    sent = run_stream(failing(1, EngineDeadError("the core was killed")))
    assert [message["type"] for message in sent] == [
        "http.response.start",
        *["http.response.body"] * 3,
    ]
    assert sent[2]["body"].endswith(b"data: [DONE]\n\n")
    error = json.loads(sent[2]["body"].split(b"\n")[0][6:])["error"]
    assert (error["code"], error["message"]) == (503, "the core was killed")
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_an_error_before_the_first_event_is_an_answer() -> None:
    with pytest.raises(EngineDeadError):
        run_stream(failing(0, EngineDeadError("the core was killed")))


def test_what_nobody_foresaw_tells_no_details(caplog: pytest.LogCaptureFixture) -> None:
    sent = run_stream(failing(1, RuntimeError("secret")))
    assert b'"code":500' in sent[2]["body"]
    assert b"secret" not in sent[2]["body"]


def test_work_ends_when_the_client_leaves() -> None:
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("given back")

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def body() -> None:
        with pytest.raises(ClientDisconnect):
            await while_connected(receive, work())
        log.append("told")

    asyncio.run(body())
    assert log == ["given back", "told"]


@pytest.mark.parametrize(
    ("error", "status", "param"),
    [
        (InputError("top_p=2 must be in (0, 1]"), 400, "top_p"),
        (InputError("the prompt is empty"), 400, "prompt"),
        (InputError("no name here"), 400, None),
        (EngineDeadError("gone"), 503, None),
        (ApiError(404, "x", "model"), 404, "model"),
        (RuntimeError("secret"), 500, None),
    ],
)
def test_statuses(error: Exception, status: int, param: str | None) -> None:
    made = as_api_error(error)
    assert (made.status, made.param) == (status, param)
    assert "secret" not in made.message
    assert ("Retry-After" in made.headers) == (status == 503)


@given(message=st.text(st.characters(exclude_categories=())))
def test_every_message_can_be_sent(message: str) -> None:
    body = json.loads(error_body(ApiError(400, message * 50)))
    assert len(body["error"]["message"]) <= 10 * 1002
    assert param_of(message) is None or message.startswith((param_of(message) or "", "the prompt"))


@given(st.lists(st.integers(0, 258), max_size=20))
def test_offsets_count_on_over_pieces(token_ids: list[int]) -> None:
    positions: list[Any] = [{each: Logprob(-1.0, 1, None)} for each in token_ids]
    texts = TokenTexts(TokenFacts.of(demo_tokenizer()))
    whole = CompletionLogprobs(texts).write(token_ids, positions)
    pieces = CompletionLogprobs(texts)
    told = [
        pieces.write([each], [position])
        for each, position in zip(token_ids, positions, strict=True)
    ]
    assert [offset for each in told for offset in each["text_offset"]] == whole["text_offset"]
    ends = [
        start + len(text) for start, text in zip(whole["text_offset"], whole["tokens"], strict=True)
    ]
    assert whole["text_offset"][1:] == ends[:-1]


def test_the_most_likely_tokens_of_a_chat() -> None:
    position = {
        5: Logprob(-9.0, 7, "e"),
        1: Logprob(-0.1, 1, "a"),
        2: Logprob(-2.0, 2, "b"),
    }
    for num_top, expected in ((0, []), (1, ["a"]), (2, ["a", "b"])):
        told = chat_logprobs([5], [position], num_top, TokenTexts(TokenFacts()))["content"][0]
        assert told["token"] == "e"
        assert [each["token"] for each in told["top_logprobs"]] == expected
    told = chat_logprobs([5], [position], 1, TokenTexts(TokenFacts(), as_ids=True))["content"][0]
    assert told["token"] == "token_id:5"


def test_numbers_that_json_has_not() -> None:
    assert finite(-1.5) == -1.5
    assert finite(float("-inf")) == finite(float("nan")) == -9999.0


PROMPTS = st.one_of(
    st.text(min_size=1),
    st.lists(st.text(min_size=1), min_size=1),
    st.lists(st.integers(0), min_size=1),
    st.lists(st.lists(st.integers(0), min_size=1), min_size=1),
)


@given(PROMPTS)
def test_prompts_are_told_apart(value: Any) -> None:
    prompts = split_prompts(value, 1000)
    assert prompts == value or prompts == [value]
    assert all(isinstance(each, str) or set(map(type, each)) == {int} for each in prompts)


def stats(num_running: int, num_waiting: int) -> StepStats:
    return StepStats(0, 0.0, 0.0, num_running, num_waiting, 5, *[0] * 3, [], *[0] * 6)


def test_the_queue_is_what_has_no_place() -> None:
    state = ServerState(max_model_len=100, max_num_seqs=2, num_kv_blocks=10)
    for number in range(4):
        state.on_arrival(str(number), 10, SamplingParams(n=1, max_tokens=20))
    # a burst before the first step: the batch has room for two
    assert state.num_queued == 2
    assert [state.has_room(limit) for limit in (None, 3, 2, 0)] == [True, True, False, False]
    assert state.num_rejected == 2
    assert state.num_outstanding_tokens == 4 * 30
    state.on_step(stats(1, 3), None)
    assert (state.num_queued, state.kv_cache_usage) == (3, 0.5)
    state.on_tokens("0", 3, 0.0, True)
    assert state.num_outstanding_tokens == 3 * 30 + 17
    for number in range(4):
        state.on_finished(record(str(number)))
    state.on_step(stats(0, 0), None)
    assert (state.num_queued, state.num_outstanding_tokens, state.open_ids) == (0, 0, [])
    assert state.has_room(0)


def test_work_that_was_let_in_holds_its_place_before_the_engine_has_it() -> None:
    state = ServerState(max_model_len=100, max_num_seqs=1, num_kv_blocks=10)
    with state.entering():
        assert (state.num_queued, state.has_room(1), state.has_room(0)) == (0, True, False)
        with state.entering():
            assert (state.num_queued, state.has_room(1)) == (1, False)
            state.on_arrival("a", 10, SamplingParams(n=1))
            assert (state.num_queued, state.has_room(1)) == (1, False)
            state.on_finished(record("a"))
        assert state.num_queued == 0
    assert state.has_room(0)


def test_a_server_is_idle_when_neither_side_has_work() -> None:
    async def body() -> None:
        state = ServerState(100, 2, 10)
        state.begin_work()
        state.on_arrival("a", 1, SamplingParams())
        idle = asyncio.create_task(state.wait_idle())
        state.end_work()
        await asyncio.sleep(0)
        assert not idle.done()
        state.on_core_dead("gone")
        await asyncio.wait_for(idle, 10)

    asyncio.run(body())


class DyingEngine:
    """An engine whose core dies as soon as it is started."""

    def __init__(self) -> None:
        self.num_starts = 0

    async def wait_dead(self) -> str:
        return "killed"

    async def restart(self) -> None:
        self.num_starts += 1
        if self.num_starts == 2:
            raise EngineDeadError("no memory")


def test_a_core_is_started_so_often_and_no_more() -> None:
    engine: Any = DyingEngine()
    asyncio.run(supervise(engine, 3, first_pause=0.0))
    assert engine.num_starts == 3
