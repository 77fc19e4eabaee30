"""Nothing that a client sends gives a 5xx; every refusal has OpenAI's form and names its field."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.server.serving import RunningServer, serving

BAD_BODIES: list[tuple[bytes, str]] = [
    (b"", "no JSON"),
    (b"{", "no JSON"),
    (b"[1]", "JSON object"),
    (b"null", "JSON object"),
    (b"\xff\xfe", "no JSON"),
    (b'{"prompt": "\xff"}', "no JSON"),
    (rb'{"prompt": "\ud800"}', "no JSON"),
    (b'{"prompt": ' + b"[" * 100_000, "no JSON"),
    (b'{"prompt": "a", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "no JSON"),
    (b'{"prompt": "a", "temperature": NaN}', "temperature"),
    (b'{"prompt": "a", "temperature": Infinity}', "temperature"),
    (b'{"prompt": "a", "temperature": 1e999}', "temperature"),
    (b'{"prompt": "a", "top_k": 1' + b"0" * 400 + b"}", "top_k"),
    (b'{"prompt": "a", "seed": 1' + b"0" * 5000 + b"}", "no JSON"),
]

BAD_COMPLETIONS: list[tuple[dict[str, Any], str | None]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [True]}, "prompt"),
    ({"prompt": [1.5]}, "prompt"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": [[1], "a"]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [10**30]}, "prompt"),
    ({"prompt": [999]}, "prompt"),
    ({"n": 0}, "n"),
    ({"n": 10**9}, "n"),
    ({"n": "abc"}, "n"),
    ({"prompt": ["a"] * 2000}, "prompt"),
    ({"best_of": 3}, "best_of"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": 99_999}, "max_tokens"),
    ({"max_tokens": 2048}, "max_tokens"),
    ({"min_tokens": 17}, "min_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": 1e300}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"repetition_penalty": 1e300}, "repetition_penalty"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": -1}, "logprobs"),
    ({"prompt_logprobs": 99}, "prompt_logprobs"),
    ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"logit_bias": {"5": 1000}}, "logit_bias.5"),
    ({"logit_bias": {"99999": 1}}, "logit_bias"),
    ({"stop": [1]}, "stop.0"),
    ({"stop": 1}, "stop"),
    ({"stop": ["a"] * 100}, "stop"),
    ({"stop_token_ids": [999]}, "stop_token_ids"),
    ({"allowed_token_ids": []}, "allowed_token_ids"),
    ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": "maybe"}, "stream"),
    ({"suffix": "x"}, "suffix"),
    ({"use_beam_search": True}, "use_beam_search"),
    ({"cache_salt": "x"}, "cache_salt"),
    ({"prompt_embeds": "x"}, "prompt_embeds"),
    ({"request_id": "a\nb"}, "request_id"),
    ({"guided_regex": "("}, "structured_outputs"),
    ({"guided_json": "{"}, "structured_outputs"),
    ({"guided_json": {"type": "nonsense"}}, "structured_outputs"),
    ({"structured_outputs": {}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
    ({"structured_outputs": {"json_object": True}, "guided_regex": "a"}, None),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
]

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f"}}

BAD_CHATS: list[tuple[dict[str, Any], str | None]] = [
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"content": "hi"}]}, "messages.0.role"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages.0.content.0",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0"),
    (
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}],
                },
            ]
        },
        "messages.1.tool_calls.0.function.arguments",
    ),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"chat_template": "{{ 7 * 7 }}"}, "chat_template"),
    ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"self": 1}}, "chat_template_kwargs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 30}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages.0.content.0.type"),
    ({"messages": [{"role": "user", "content": ["a"]}]}, "messages.0.content.0"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"function": {"name": "g"}}}, None),
    ({"tools": [TOOL], "tool_choice": {"type": "custom"}}, "tool_choice.type"),
    ({"tools": [{"type": "function"}]}, "tools.0.function"),
    ({"tools": [TOOL], "tool_choice": "required", "guided_regex": "a"}, "tool_choice"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"modalities": ["audio"]}, "modalities"),
]


def check_error(status: int, answer: Any, expected: int = 400) -> dict[str, Any]:
    assert status == expected, answer
    assert set(answer) == {"error"}
    error: dict[str, Any] = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == expected
    assert error["message"]
    assert "\n" not in error["message"]
    return error


@pytest.mark.parametrize(("body", "reason"), BAD_BODIES, ids=lambda value: str(value)[:30])
def test_bodies_that_are_no_request(server: RunningServer, body: bytes, reason: str) -> None:
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
        status, _, answer = server.request("POST", path, body)
        if path == "/v1/completions":
            assert reason in check_error(status, json.loads(answer))["message"]
        else:
            # fields that are not its own are ignored
            assert status in (200, 400)


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/detokenize"])
def test_a_body_that_is_no_object_blames_no_field(server: RunningServer, path: str) -> None:
    for body in (b"null", b"[]", b"5"):
        status, _, answer = server.request("POST", path, body)
        error = check_error(status, json.loads(answer))
        assert (error["message"], error["param"]) == ("the body must be a JSON object", None)


@pytest.mark.parametrize(("fields", "param"), BAD_COMPLETIONS, ids=lambda value: str(value)[:40])
def test_completions(server: RunningServer, fields: dict[str, Any], param: str | None) -> None:
    error = check_error(*server.post("/v1/completions", {"prompt": "a"} | fields))
    assert error["type"] == "BadRequestError"
    assert error["param"] == param


@pytest.mark.parametrize(("fields", "param"), BAD_CHATS, ids=lambda value: str(value)[:40])
def test_chats(server: RunningServer, fields: dict[str, Any], param: str | None) -> None:
    error = check_error(*server.post("/v1/chat/completions", {"messages": [USER]} | fields))
    assert error["param"] == param


def test_a_stream_is_refused_before_it_begins(server: RunningServer) -> None:
    status, answer = server.post("/v1/completions", {"prompt": "a" * 5000, "stream": True})
    error = check_error(status, answer)
    assert "5000" in error["message"]
    assert "2048" in error["message"]


def test_megabytes_of_text_are_too_long(server: RunningServer) -> None:
    status, answer = server.post("/v1/completions", {"prompt": "word " * 200_000})
    assert "1000000" in check_error(status, answer)["message"]


def test_routes_and_methods(server: RunningServer) -> None:
    error = check_error(*server.get("/nothing/here"), 404)
    assert error["type"] == "NotFoundError"
    status, headers, answer = server.request("DELETE", "/v1/completions")
    check_error(status, json.loads(answer), 405)
    assert headers["allow"] == "POST"
    assert check_error(*server.get("/v1/models/nope"), 404)["param"] == "model"
    assert check_error(*server.get("/v1/models/"), 404)["param"] == "model"
    check_error(*server.post("/v1/completions", {"prompt": "a", "model": "nope"}), 404)


def test_other_kinds_of_bodies(server: RunningServer) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    error = check_error(*server.post("/v1/completions", {"prompt": "a"}, form), 415)
    assert "application/json" in error["message"]
    error = check_error(*server.post("/v1/completions", {}, {"Content-Encoding": "gzip"}), 415)
    assert "gzip" in error["message"]
    plain = {"Content-Encoding": "identity"}
    assert server.post("/v1/completions", {"prompt": "a"}, plain)[0] == 200


def test_a_long_list_is_told_to_be_long(server: RunningServer) -> None:
    body = {"prompt": "a", "stop": ["s"] * 10_000}
    assert "64 items" in check_error(*server.post("/v1/completions", body))["message"]


def test_bodies_over_the_limit() -> None:
    with serving({"max_body_bytes": 1000}) as server:
        for size in (1000, 1500, 100_000):
            error = check_error(*server.post("/v1/completions", {"prompt": "a" * size}), 413)
            assert "1000" in error["message"]
        assert server.post("/v1/completions", {"prompt": "a" * 900})[0] == 200


def test_a_long_value_is_not_sent_back(server: RunningServer) -> None:
    status, answer = server.post("/v1/completions", {"prompt": "a", "n": "x" * 100_000})
    assert len(json.dumps(check_error(status, answer))) < 2000


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    [
        *("prompt", "messages", "n", "stop", "max_tokens", "logit_bias", "stream_options", "tools"),
        *("response_format", "structured_outputs", "seed", "tool_choice", "logprobs", "user"),
        *("chat_template_kwargs", "tokens", "stream", "guided_json", "bad_words", "documents"),
    ]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(FIELDS, ANYTHING, max_size=4))
def test_no_field_of_any_type_gives_a_5xx(server: RunningServer, fields: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"prompt": "a", "messages": [USER], "tokens": [1], "max_tokens": 4}
    body = json.dumps(plain | fields).encode()
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
        status, _, answer = server.request("POST", path, body)
        assert status in (200, 400), (path, body, answer)


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ({"tools": [TOOL]}, ["--enable-auto-tool-choice", "--tool-call-parser"]),
        ({"logprobs": True, "top_logprobs": 30}, ["--max-logprobs"]),
        ({"chat_template": "{{ 1 }}"}, ["--trust-request-chat-template"]),
    ],
)
def test_what_the_server_was_not_started_with_is_told_as_a_flag(
    fields: dict[str, Any], flags: list[str]
) -> None:
    with serving() as server:
        body = {"messages": [{"role": "user", "content": "a"}]} | fields
        status, answer = server.post("/v1/chat/completions", body)
    assert status == 400
    for flag in flags:
        assert flag in answer["error"]["message"]
