"""Generate over a real channel: answers, streams, ends, errors."""

import pytest

from engine.server.settings import ServerSettings
from tests.engine.served import demo_tokenizer
from tests.engine.server.grpc.harness import Session, refused, run, until


def test_an_answer_comes_whole_with_its_usage() -> None:
    async def body(session: Session) -> None:
        request = session.schema.GenerateRequest(text="abc", sampling_params={"max_tokens": 5})
        (response,) = [each async for each in session.stub.Generate(request)]
        (answer,) = response.answers
        assert (answer.text, answer.finish_reason) == ("abcab", "length")
        assert list(answer.token_ids) == demo_tokenizer().encode("abcab")
        assert response.finished
        assert response.request_id
        assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (3, 5)

    run(body)


def test_a_stream_brings_what_is_new() -> None:
    async def body(session: Session) -> None:
        token_ids = {"ids": demo_tokenizer().encode("hi")}
        request = session.schema.GenerateRequest(
            token_ids=token_ids, sampling_params={"max_tokens": 40}, stream=True
        )
        responses = [each async for each in session.stub.Generate(request)]
        text = "".join(answer.text for each in responses for answer in each.answers)
        assert text == "hi" * 20
        assert [each.finished for each in responses] == [False] * (len(responses) - 1) + [True]
        assert not responses[0].HasField("usage") or len(responses) == 1
        assert responses[-1].usage.completion_tokens == 40

    run(body)


def test_several_answers_stop_strings_and_log_probabilities() -> None:
    async def body(session: Session) -> None:
        params = {"n": 3, "max_tokens": 9, "stop": ["lo"], "logprobs": 2}
        request = session.schema.GenerateRequest(text="Hello", sampling_params=params)
        (response,) = [each async for each in session.stub.Generate(request)]
        assert [answer.index for answer in response.answers] == [0, 1, 2]
        for answer in response.answers:
            assert (answer.text, answer.finish_reason, answer.stop_string) == ("Hel", "stop", "lo")
            assert len(answer.logprobs) == len(answer.token_ids)
            assert answer.logprobs[0].tokens[0].text == "H"
            assert answer.logprobs[0].tokens[0].logprob == -0.5
        assert response.usage.completion_tokens == sum(
            len(answer.token_ids) for answer in response.answers
        )

    run(body)


def test_a_conversation_goes_through_the_chat_template() -> None:
    async def body(session: Session) -> None:
        messages = [{"role": "user", "content": "Hello"}]
        request = session.schema.GenerateRequest(
            conversation={"messages": messages}, sampling_params={"max_tokens": 23}
        )
        (response,) = [each async for each in session.stub.Generate(request)]
        assert response.answers[0].text == "user: Hello\nassistant: "

    run(body)


BAD_REQUESTS = {
    "no prompt": ({}, "INVALID_ARGUMENT", "prompt is missing"),
    "no message": ({"conversation": {}}, "INVALID_ARGUMENT", "no messages"),
    "role": (
        {"conversation": {"messages": [{"role": "robot", "content": "a"}]}},
        "INVALID_ARGUMENT",
        "role='robot'",
    ),
    "empty ids": ({"token_ids": {}}, "INVALID_ARGUMENT", ""),
    "unknown token": ({"token_ids": {"ids": [70000]}}, "INVALID_ARGUMENT", "70000"),
    "too long": ({"text": "a" * 3000}, "INVALID_ARGUMENT", "2048"),
    "model": ({"text": "a", "model": "other"}, "NOT_FOUND", "model="),
    "id": ({"text": "a", "request_id": "a b"}, "INVALID_ARGUMENT", "request_id"),
    "top_p": ({"text": "a", "sampling_params": {"top_p": 2}}, "INVALID_ARGUMENT", "top_p"),
    "n": ({"text": "a", "sampling_params": {"n": 10**6}}, "INVALID_ARGUMENT", "n="),
    "n of 0": ({"text": "a", "sampling_params": {"n": 0}}, "INVALID_ARGUMENT", "n="),
    "logprobs": (
        {"text": "a", "sampling_params": {"logprobs": 500}},
        "INVALID_ARGUMENT",
        "--max-logprobs",
    ),
    "no form": (
        {"text": "a", "sampling_params": {"structured_output": {}}},
        "INVALID_ARGUMENT",
        "structured_output",
    ),
    "a form that is none": (
        {"text": "a", "sampling_params": {"structured_output": {"json_schema": "{"}}},
        "INVALID_ARGUMENT",
        "json",
    ),
}


@pytest.mark.parametrize("stream", [False, True])
def test_bad_requests_get_a_status_and_a_reason(stream: bool) -> None:
    async def body(session: Session) -> None:
        for name, (fields, status, words) in BAD_REQUESTS.items():
            request = session.schema.GenerateRequest(**fields, stream=stream)
            code, details = await refused(session.stub.Generate(request))
            assert (name, code) == (name, status)
            assert words in details
        assert session.llm.num_unfinished_requests == 0

    run(body)


def test_an_answer_that_fails_ends_with_internal() -> None:
    async def body(session: Session) -> None:
        params = {"max_tokens": 9}
        request = session.schema.GenerateRequest(text="x", sampling_params=params, stream=True)
        code, details = await refused(session.stub.Generate(request))
        assert code == "INTERNAL"
        assert "not a number" in details

    run(body, script="nan_third")


def test_an_id_serves_one_request_at_a_time() -> None:
    async def body(session: Session) -> None:
        request = session.schema.GenerateRequest(
            text="abc", request_id="mine", stream=True, sampling_params={"max_tokens": 2000}
        )
        first = session.stub.Generate(request)
        assert (await first.read()).request_id == "mine"
        code, details = await refused(session.stub.Generate(request))
        assert code == "ALREADY_EXISTS"
        assert "mine" in details
        first.cancel()

    run(body, step_s=0.002)


def test_a_dead_engine_is_unavailable() -> None:
    async def body(session: Session) -> None:
        request = session.schema.GenerateRequest(text="x", sampling_params={"max_tokens": 9})
        code, details = await refused(session.stub.Generate(request))
        assert code == "UNAVAILABLE"
        assert "fell off the bus" in details
        assert (await refused(session.stub.Generate(request)))[0] == "UNAVAILABLE"

    run(body, script="fail_third")


def test_a_full_queue_is_exhausted() -> None:
    async def body(session: Session) -> None:
        running = session.stub.Generate(session.endless())
        await running.read()
        waiting = session.stub.Generate(session.endless())
        await until(lambda: session.state.num_queued == 1)
        code, details = await refused(session.stub.Generate(session.endless()))
        assert code == "RESOURCE_EXHAUSTED"
        assert "max_queue=1" in details
        assert session.state.num_rejected == 1
        for call in (running, waiting):
            call.cancel()
        await session.until_all_is_free()

    run(body, ServerSettings(max_queue=1), max_num_seqs=1, step_s=0.002)
