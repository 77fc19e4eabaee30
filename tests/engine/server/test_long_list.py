"""A body with a long list is read as the schema alone would read it."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from engine.server import long_list
from engine.server.long_list import SLICE, read_with_list
from engine.server.schemas.completion import CompletionRequest

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
        sizes.append(0 if options else len(data))
        return decode(data, **options)

    monkeypatch.setattr(long_list.msgspec.json, "decode", watched)
    body = json.dumps({"prompt": MANY * 10}).encode()
    assert read_with_list(CompletionRequest, body, "prompt").prompt == MANY * 10
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
