"""Reads a JSON body in which one list of numbers may be very long.

A parser goes through megabytes in one call, in which no other thread gets its turn. Here the list
is read in slices, and the schema gets the rest. Knows JSON; knows no endpoint.
"""

import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel

Schema = TypeVar("Schema", bound=BaseModel)
SLICE = 2**16
"""Bytes of a list that are read at a time."""
_OPEN_LIST = re.compile(rb"\s*\[")


def read_with_list(schema: type[Schema], body: bytes, name: str) -> Schema:
    """The body as a schema; the same as `schema.model_validate_json(body)`.

    Args:
        schema: Takes any value for the field `name`, and None.
        body: JSON.
        name: Of the field that may hold a long list of integers.

    Raises:
        ValidationError: By the schema.
    """
    values = _sliced(body, name)
    if values is None:
        return schema.model_validate_json(body)
    fields, items = values
    made = schema.model_validate_json(msgspec.json.encode(fields | {name: None}))
    setattr(made, name, items)
    return made


def _sliced(body: bytes, name: str) -> tuple[dict[str, Any], list[int]] | None:
    """The fields as they came and the list; None where there is no long list of integers."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        text = bytes(fields.get(name, b""))
        if len(text) < SLICE or not _OPEN_LIST.match(text):
            return None
        items: list[int] = []
        for part in _parts(text[text.index(b"[") + 1 : text.rindex(b"]")]):
            values = msgspec.json.decode(b"[" + part + b"]")
            if set(map(type, values)) != {int}:
                return None
            items += values
    except (ValueError, RecursionError):
        return None
    return fields, items


def _parts(text: bytes) -> Iterator[bytes]:
    """Text between commas, many of them at a time."""
    start = 0
    while start < len(text):
        end = text.find(b",", start + SLICE)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1
