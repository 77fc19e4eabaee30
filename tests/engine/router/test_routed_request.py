"""What is read of a body: sizes, keys of blocks and sessions, and never an error."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.router.routed_request import RoutedHTTPRequest, read_envelope
from engine.router.settings import PromptSettings
from workbench.kv_cache.block_hash import TokenBlockHashes

SETTINGS = PromptSettings(block_size=4, bytes_per_token=4.0, default_max_tokens=100)


def request(
    body: Any, path: str = "/v1/completions", session: str | None = None
) -> RoutedHTTPRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return RoutedHTTPRequest("r", "c", path, read_envelope(data), SETTINGS, session)


def test_token_ids_are_exact() -> None:
    asked = request({"model": "m", "prompt": list(range(10)), "max_tokens": 7})
    assert (asked.num_prompt_tokens, asked.num_tokens) == (10, 17)
    assert len(asked.block_hashes) == 2
    plain = TokenBlockHashes(list(range(10)), [], 4, salt=b"('list', 'm', None)").prompt()
    assert asked.block_hashes == plain


def test_text_is_measured_in_bytes() -> None:
    asked = request({"prompt": "é" * 20})
    assert (asked.num_prompt_tokens, asked.num_tokens) == (10, 110)
    assert len(asked.block_hashes) == 2


@pytest.mark.parametrize(
    ("body", "answer_tokens"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6, "max_tokens": 5}, 6),
        ({"max_output_tokens": 9}, 9),
        ({"max_tokens": 5, "n": 3}, 15),
        ({"max_tokens": "5", "n": "3"}, 100),
        ({"max_tokens": -1}, 100),
    ],
)
def test_tokens_of_the_answer(body: dict[str, Any], answer_tokens: int) -> None:
    assert request(body).num_tokens == answer_tokens


def test_several_prompts_each_have_an_answer() -> None:
    assert request({"prompt": ["abcd", "efgh"], "max_tokens": 5}).num_tokens == 12
    assert request({"prompt": [[1, 2], [3]], "max_tokens": 5}).num_tokens == 13


def test_a_longer_chat_begins_like_the_shorter_one() -> None:
    turn = [{"role": "system", "content": "s" * 100}, {"role": "user", "content": "q" * 100}]
    later = [*turn, {"role": "assistant", "content": "a"}, {"content": "x" * 50, "role": "user"}]
    path = "/v1/chat/completions"
    short = request({"messages": turn}, path).block_hashes
    assert request({"messages": later}, path).block_hashes[: len(short)] == short
    swapped = [{"content": "s" * 100, "role": "system"}, *turn[1:]]
    assert request({"messages": swapped}, path).block_hashes == short


def test_another_model_salt_or_tool_shares_nothing() -> None:
    body = {"prompt": "x" * 400, "model": "a"}
    keys = set(request(body).block_hashes)
    for other in ({"model": "b"}, {"cache_salt": "s"}, {"prompt": "y" + "x" * 399}):
        assert not keys & set(request(body | other).block_hashes)
    chat = {"messages": [{"role": "user", "content": "x" * 400}]}
    path = "/v1/chat/completions"
    with_tools = chat | {"tools": [{"type": "function"}]}
    assert not {*request(chat, path).block_hashes} & {*request(with_tools, path).block_hashes}


def test_what_fills_no_cache_has_no_keys_and_no_answer() -> None:
    asked = request({"prompt": "x" * 400}, "/tokenize")
    assert (asked.num_tokens, asked.block_hashes) == (100, ())


def test_keys_are_made_when_they_are_asked_for() -> None:
    asked = request({"prompt": "x" * 400})
    assert asked.known_hashes == ()
    assert asked.block_hashes == asked.known_hashes
    assert len(asked.known_hashes) == 25


@pytest.mark.parametrize("prompt", [[7] * 1000, "seven" * 1000])
def test_no_more_keys_are_made_than_are_remembered(prompt: Any) -> None:
    body = {"prompt": prompt}
    whole, path = request(body), "/v1/completions"
    few = PromptSettings(block_size=4, memory_blocks=3)
    asked = RoutedHTTPRequest("r", "c", path, read_envelope(json.dumps(body).encode()), few)
    assert asked.block_hashes == whole.block_hashes[:3]
    assert asked.num_prompt_tokens == whole.num_prompt_tokens


def test_sessions() -> None:
    body = {"user": "u", "prompt_cache_key": "k"}
    assert request(body, session="header").session_id == "header"
    assert request(body).session_id == "k"
    assert request({"user": "u"}).session_id == "u"
    assert request({"user": 3}).session_id is None
    assert request({}, session="\udcff" * 600).session_id == "?" * 512


BAD = (b"", b"{", b"[]", b"3", b"\xff", b'{"prompt": "\\ud800"}', b"[" * 100_000)


@pytest.mark.parametrize("body", BAD)
def test_a_body_that_cannot_be_read_is_routed_like_an_empty_one(body: bytes) -> None:
    asked = request(body)
    assert asked.num_prompt_tokens == 0
    assert len(asked.block_hashes) == 0


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = ("model", "prompt", "messages", "input", "tools", "max_tokens", "n", "user", "cache_salt")


@given(st.dictionaries(st.sampled_from(FIELDS), values))
@settings(max_examples=60, deadline=None)
def test_wrong_types_are_no_errors(body: dict[str, Any]) -> None:
    asked = request(body)
    assert 0 <= asked.num_prompt_tokens <= asked.num_tokens
    assert len(asked.block_hashes) <= asked.num_prompt_tokens / 4
