"""A body with a long list is read as the schema alone would read it."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import TypeAdapter, ValidationError

from engine.server import long_list
from engine.server.long_list import SLICE, read_with_list
from engine.server.schemas.completion import CompletionRequest
from engine.server.schemas.tokenization import TOKEN_IDS, DetokenizeRequest, TokenIds

OF_TOKENS = "tokens", TOKEN_IDS
MANY = list(range(SLICE // 4))


@pytest.mark.parametrize(
    "prompt",
    [
        MANY,
        [*MANY, -1, 2**64],
        [MANY, [1]],
        [*MANY, [1]],
        [*MANY, "a,b", "]"],
        [*MANY, True],
        [*MANY, 1.0],
        [*MANY, None],
        ["a"] * SLICE,
        ["[1,2"] * SLICE,
        "[1,2]" * SLICE,
        [1, 2],
        [],
        None,
    ],
    ids=lambda prompt: repr(prompt)[-20:],
)
def test_any_prompt_is_the_same(prompt: Any) -> None:
    for fields in ({}, {"max_tokens": 3, "stop": ["]", "ü,"], "prompt_token": [1]}):
        for indent in (None, 1):
            body = json.dumps({"model": "x", "prompt": prompt, **fields}, indent=indent).encode()
            found = read_with_list(CompletionRequest, body, "prompt")
            wanted = CompletionRequest.model_validate_json(body)
            assert found == wanted
            assert found.model_fields_set == wanted.model_fields_set
            assert repr(found.prompt) == repr(wanted.prompt)


def test_a_long_list_is_never_parsed_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    decode = long_list.msgspec.json.decode

    def watched(data: bytes, **options: Any) -> Any:
        sizes.append(len(data))
        return decode(data, **options)

    monkeypatch.setattr(long_list.msgspec.json, "decode", watched)
    body = json.dumps({"model": "x", "prompt": MANY * 10, "user": "y"}).encode()
    assert read_with_list(CompletionRequest, body, "prompt").prompt == MANY * 10
    assert max(sizes) < SLICE + 100
    assert len(sizes) > 10
    # neither by pydantic
    whole = TypeAdapter(TokenIds)
    kind = SimpleNamespace(
        validate_json=lambda data: sizes.append(len(data)) or whole.validate_json(data)
    )
    sizes.clear()
    body = body.replace(b"prompt", b"tokens")
    found: Any = read_with_list(DetokenizeRequest, body, "tokens", cast(Any, kind))
    assert found.tokens == MANY * 10
    assert max(sizes) < SLICE + 100
    assert len(sizes) > 10


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[1]",
        b'{"prompt": [1,',
        b'{"prompt": ' + json.dumps(MANY).encode() + b', "max_tokens": "many"}',
        b'{"prompt": ' + json.dumps(MANY).encode() + b', "max_tokens": 3',
        b'{"prompt": ' + json.dumps(MANY).encode()[:-1] + b",,1]}",
        b'{"prompt": ' + json.dumps(MANY).encode()[:-1] + b",]}",
        b'{"prompt": [,' + json.dumps(MANY).encode()[1:] + b"}",
        b'{"prompt": ' + json.dumps(MANY).encode() + b', "user": "\xff"}',
    ],
    ids=lambda body: repr(body[-20:]),
)
def test_errors_are_the_schema_s(body: bytes) -> None:
    with pytest.raises(ValidationError) as wanted:
        CompletionRequest.model_validate_json(body)
    with pytest.raises(ValidationError) as found:
        read_with_list(CompletionRequest, body, "prompt")
    told, expected = (e.value.errors(include_url=False)[0] for e in (found, wanted))
    assert (told["type"], told["loc"]) == (expected["type"], expected["loc"])


def outcome(read: Callable[[bytes], Any], body: bytes) -> Any:
    """What is read, or the first error."""
    try:
        return read(body).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return {name: first[name] for name in ("type", "loc", "msg", "input") if name in first}


@pytest.mark.parametrize(
    "tokens",
    [
        MANY,
        [*MANY, 2.0, "7", True],
        [*MANY, -1, -2],
        [*MANY, 2**31],
        [*MANY, 2**70],
        [*MANY, "a"],
        [*MANY, "a,b"],
        [*MANY, 1.5, None],
        [*MANY, None],
        [*MANY, [1], {"a": 1}],
        ["a,b"] * SLICE,
        [[]] * SLICE,
        "[1, 2]" * SLICE,
        [1, 2],
        [],
    ],
    ids=lambda tokens: repr(tokens)[-20:],
)
@pytest.mark.parametrize("fields", [{}, {"model": "x"}, {"model": 5}, {"\t \t": [1]}], ids=repr)
def test_tokens_are_those_of_the_schema(tokens: Any, fields: dict[str, Any]) -> None:
    for body in (fields | {"tokens": tokens}, {"tokens": tokens, "more": MANY} | fields):
        data = json.dumps(body).encode()
        found = outcome(lambda data: read_with_list(DetokenizeRequest, data, *OF_TOKENS), data)
        assert found == outcome(DetokenizeRequest.model_validate_json, data)


@pytest.mark.parametrize(
    "body",
    [
        b'{"tokens": [1], "other": %s}',
        b'{"other": {"tokens": %s}, "tokens": [\t \t]}',
        b'{"tokens": %s, "tokens": [4]}',
        b'{"model": "[", "tokens": %s}',
        b'{"model": "]", "tokens": %s}',
        b'{"other": [[1], %s], "tokens": %s}',
        b'{"tokens": [%s]}',
        b'{"tokens": %s]}',
        b'{"tokens": %s',
        b'[{"tokens": %s}]',
        b"%s",
    ],
    ids=repr,
)
def test_the_list_is_found_where_it_is_and_nowhere_else(body: bytes) -> None:
    data = body.replace(b"%s", json.dumps(MANY).encode())
    found = outcome(lambda data: read_with_list(DetokenizeRequest, data, *OF_TOKENS), data)
    assert found == outcome(DetokenizeRequest.model_validate_json, data)
