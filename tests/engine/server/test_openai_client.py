"""What the `openai` package makes of our server: the checks that a real vLLM was put through."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.engine.server.serving import MODEL, RunningServer

pytest.importorskip("openai")

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]


class City(BaseModel):
    name: str
    size: int


CITY = '{"name":"Rome","size":3}'
SCHEMA = {"name": "city", "schema": City.model_json_schema(), "strict": True}


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL, "alias"]
    assert client.models.retrieve("alias").id == "alias"


def completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="say «Hello!»", max_tokens=20)
    assert answer.choices[0].text == "Hello!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (14, 7)


def completion_token_ids(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=[71, 72], max_tokens=4)
    assert answer.choices[0].text == "hihi"


def completion_batch(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=["ab", "cd"], n=2, max_tokens=2)
    assert [(each.index, each.text) for each in answer.choices] == [
        (0, "ab"),
        (1, "ab"),
        (2, "cd"),
        (3, "cd"),
    ]


def completion_echo_logprobs(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="abc", max_tokens=2, echo=True, logprobs=1
    )
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text == "abcab"
    assert logprobs is not None
    assert logprobs.tokens == list("abcab")
    assert logprobs.text_offset == [0, 1, 2, 3, 4]
    assert logprobs.token_logprobs == [None, -1.0, -1.0, -0.5, -0.5]


def completion_only_echo(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=[[64, 65], [66]], max_tokens=0, echo=True, logprobs=0
    )
    assert [each.text for each in answer.choices] == ["ab", "c"]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0


def completion_stream(client: openai.OpenAI) -> None:
    pieces, usage = [], None
    for chunk in client.completions.create(
        model=MODEL,
        prompt=["say «one»", "say «two»"],
        stream=True,
        stream_options={"include_usage": True},
    ):
        pieces += [(each.index, each.text) for each in chunk.choices]
        usage = chunk.usage or usage
    assert "".join(text for index, text in pieces if index == 0) == "one"
    assert "".join(text for index, text in pieces if index == 1) == "two"
    assert usage is not None
    assert usage.completion_tokens == 8


def stop(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="say «one, two»", stop=[",", "z"])
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("one", "stop")


def chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="alias", messages=user("«Hi»"), max_completion_tokens=9, n=2, seed=1
    )
    assert [each.message.content for each in answer.choices] == ["Hi", "Hi"]
    assert answer.choices[1].message.role == "assistant"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None


def chat_parts(client: openai.OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "«"}, {"type": "text", "text": "Hi»"}]
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "developer", "content": "be kind"}, {"role": "user", "content": parts}],
    )
    assert answer.choices[0].message.content == "\nHi"


def chat_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=user("«Hello»"),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    content = [each.choices[0].delta.content or "" for each in chunks if each.choices]
    assert "".join(content) == "Hello"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 6


def chat_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=user("«é»"), logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    # each byte is a token; the end of sequence is the third
    assert [each.bytes for each in logprobs.content[:2]] == [[0xC3], [0xA9]]
    assert len(logprobs.content[0].top_logprobs) == 2


def json_object(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=user(f"«{CITY}»"), response_format={"type": "json_object"}
    )
    assert json.loads(answer.choices[0].message.content or "") == {"name": "Rome", "size": 3}


def json_schema(client: openai.OpenAI) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": SCHEMA}
    answer = client.chat.completions.create(
        model=MODEL, messages=user(f"«{CITY}»"), response_format=wanted
    )
    assert City.model_validate_json(answer.choices[0].message.content or "").size == 3


def json_parse_pydantic(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=user(f"«{CITY}»"), response_format=City
    )
    assert answer.choices[0].message.parsed == City(name="Rome", size=3)


def structured_choice(client: openai.OpenAI) -> None:
    for extra in ({"structured_outputs": {"choice": ["red", "blue"]}}, {"guided_choice": ["red"]}):
        answer = client.completions.create(model=MODEL, prompt="«red»", extra_body=extra)
        assert answer.choices[0].text == "red"


def tools_auto(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=user(f"«{CALL}»"), tools=TOOLS, tool_choice="auto"
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    check_call(choice.message.tool_calls)


def tools_named(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=user('«{"city":"Rome"}»'),
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    check_call(answer.choices[0].message.tool_calls)


def tools_required(client: openai.OpenAI) -> None:
    calls = '[{"name":"weather","parameters":{"city":"Rome"}}]'
    answer = client.chat.completions.create(
        model=MODEL,
        messages=user(f"«{calls}»"),
        tools=TOOLS,
        tool_choice="required",
        parallel_tool_calls=False,
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    check_call(answer.choices[0].message.tool_calls)


def tools_stream(client: openai.OpenAI) -> None:
    names, arguments, reasons = [], "", []
    for chunk in client.chat.completions.create(
        model=MODEL, messages=user(f"«{CALL}»"), tools=TOOLS, stream=True
    ):
        reasons.append(chunk.choices[0].finish_reason)
        for call in chunk.choices[0].delta.tool_calls or ():
            assert call.function is not None
            names += [call.function.name] if call.function.name else []
            arguments += call.function.arguments or ""
    assert names == ["weather"]
    assert json.loads(arguments) == {"city": "Rome"}
    assert reasons[-1] == "tool_calls"


def tools_result(client: openai.OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages: list[Any] = [
        {"role": "user", "content": "the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "«sunny»"},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
    assert answer.choices[0].message.content == "sunny"


def unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nope"):
        client.completions.create(model="nope", prompt="a")


def too_long(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"3000.*2048"):
        client.completions.create(model=MODEL, prompt="a" * 3000)


def bad_parameter(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=MODEL, prompt="a", temperature=-1)
    assert error.value.param == "temperature"


def ids_and_extras(client: openai.OpenAI) -> None:
    answer = client.completions.with_raw_response.create(
        model=MODEL,
        prompt="a",
        logit_bias={"65": 1},
        user="me",
        extra_body={"top_k": 5, "min_p": 0.1, "priority": 1, "who_knows": [1], "n": None},
        extra_headers={"X-Request-Id": "mine"},
    )
    assert answer.headers["x-request-id"] == "mine"
    assert answer.parse().id == "cmpl-mine"


CHECKS = (
    *(models, completion, completion_token_ids, completion_batch, completion_echo_logprobs),
    *(completion_only_echo, completion_stream, stop, chat, chat_parts, chat_stream, chat_logprobs),
    *(json_object, json_schema, json_parse_pydantic, structured_choice, tools_auto, tools_named),
    *(tools_required, tools_stream, tools_result, unknown_model, too_long, bad_parameter),
    ids_and_extras,
)


def check_call(calls: Any) -> None:
    assert [call.function.name for call in calls] == ["weather"]
    assert json.loads(calls[0].function.arguments) == {"city": "Rome"}
    assert calls[0].id


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_sync_client(server: RunningServer, check: Callable[[openai.OpenAI], None]) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        check(client)


def test_async_clients_side_by_side(server: RunningServer) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(
            model=MODEL, messages=user(f"«number {number}»"), stream=True
        )
        text = ""
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
        return text

    async def body() -> None:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            answers = await asyncio.gather(*(ask(client, number) for number in range(32)))
        assert answers == [f"number {number}" for number in range(32)]

    asyncio.run(body())
