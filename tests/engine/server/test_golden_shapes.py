"""Our answers have the fields of a real vLLM's, in its order; more is allowed, less is not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.server.serving import RunningServer, events_of

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
STREAM = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}

PAIRS: list[tuple[str, str, dict[str, Any]]] = [
    ("completion.json", "/v1/completions", {"prompt": "hello", "max_tokens": 4, "logprobs": 2}),
    (
        "return_ids.json",
        "/v1/completions",
        {"prompt": [40, 41], "max_tokens": 3, "return_token_ids": True, "prompt_logprobs": 1},
    ),
    ("chat.json", "/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 2}),
    ("tokenize.json", "/tokenize", {"prompt": "hello"}),
    ("err400.json", "/v1/completions", {"prompt": "a", "temperature": -1.0}),
    ("err400_len.json", "/v1/completions", {"prompt": "a", "max_tokens": 99_999}),
    ("err404.json", "/v1/completions", {"prompt": "a", "model": "nope"}),
    ("err422.json", "/v1/completions", {"prompt": "a", "n": "abc"}),
]
STREAMS = [
    ("completion_stream.txt", "/v1/completions", {"prompt": "hello", "max_tokens": 3} | STREAM),
    (
        "chat_stream.txt",
        "/v1/chat/completions",
        CHAT | {"stream_options": {"include_usage": True}},
    ),
]
FREE = ("top_logprobs.", "prompt_logprobs.")
"""Dicts whose keys are tokens."""


@pytest.fixture(scope="session")
def golden_dir(shared_dir: Path) -> Path:
    folder = shared_dir / "golden"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


def paths(value: Any, prefix: str = "") -> Iterator[str]:
    """The places of all values; items of a list share one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{prefix}{key}"
            yield from paths(inner, f"{prefix}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, prefix)


def shape(value: Any) -> list[str]:
    return [
        path
        for path in dict.fromkeys(paths(value))
        if not any(f".{free}" in f".{path}" for free in FREE)
    ]


def check_shape(ours: Any, theirs: Any) -> None:
    found, wanted = shape(ours), shape(theirs)
    assert [path for path in found if path in wanted] == wanted
    more = {path for path in found if path not in wanted}
    assert more <= {
        "usage.prompt_tokens_details",
        "usage.prompt_tokens_details.cached_tokens",
    }


@pytest.mark.parametrize(("name", "path", "body"), PAIRS, ids=lambda value: str(value)[:20])
def test_bodies(
    server: RunningServer, golden_dir: Path, name: str, path: str, body: dict[str, Any]
) -> None:
    theirs = json.loads((golden_dir / name).read_text())
    _, ours = server.post(path, body)
    check_shape(ours, theirs)
    if "error" in theirs:
        assert ours["error"]["code"] == theirs["error"]["code"]
        assert ours["error"]["param"] == theirs["error"]["param"].removeprefix("body.")


@pytest.mark.parametrize(("name", "path", "body"), STREAMS, ids=lambda value: str(value)[:20])
def test_streams(
    server: RunningServer, golden_dir: Path, name: str, path: str, body: dict[str, Any]
) -> None:
    theirs = events_of((golden_dir / name).read_bytes())
    ours = server.stream(path, body)
    assert ours[-1] == theirs[-1] == "[DONE]"
    assert len(ours) == len(theirs)
    for event, wanted in zip(ours[:-1], theirs[:-1], strict=True):
        check_shape(event, wanted)


def test_request_fields_of_vllm_are_known(server: RunningServer, golden_dir: Path) -> None:
    """Every field of vLLM's requests is honoured, refused by name, or listed here as ignored."""
    document = json.loads((golden_dir / "vllm_openapi.json").read_text())
    ours = server.get("/openapi.json")[1]["components"]["schemas"]
    ignored = {
        *("routed_experts_prompt_start", "mm_payload", "return_mm_kwargs", "include_reasoning"),
    }
    for name in ("CompletionRequest", "ChatCompletionRequest"):
        theirs = set(document["components"]["schemas"][name]["properties"])
        assert theirs - set(ours[name]["properties"]) <= ignored
