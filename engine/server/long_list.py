"""Reads a JSON body in which one list of numbers may be very long.

A parser goes through megabytes in one call, in which no other thread gets its turn. Here the list
is read in slices, and the schema gets the rest. Knows JSON; knows no endpoint.
"""

import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails

Schema = TypeVar("Schema", bound=BaseModel)
SLICE = 2**16
"""Bytes of a list that are read at a time."""
PLACE = b"\t \t"
"""Stands for the inside of a list."""
Fields = dict[str, msgspec.Raw]
_OPEN_LIST = re.compile(rb"\s*\[")


def read_with_list(
    schema: type[Schema], body: bytes, name: str, items: TypeAdapter[list[int]] | None = None
) -> Schema:
    """The body as a schema; the same as `schema.model_validate_json(body)`.

    Args:
        schema: Takes an empty list for the field `name`.
        body: JSON.
        name: Of the field that may hold a long list of integers.
        items: What the schema takes for it; None: any value.

    Raises:
        ValidationError: By the schema.
    """
    found = _without_list(body, name) or _with_raw_list(body, name)
    if found is not None:
        fields, text = found
        made = schema.model_validate_json(msgspec.json.encode(fields | {name: []}))
        values = _values(text, name, items)
        if values is not None:
            setattr(made, name, values)
            return made
    return schema.model_validate_json(body)


def _without_list(body: bytes, name: str) -> tuple[Fields, bytes] | None:
    """The fields as they came and the inside of the list, which no parser has seen; None where
    the first list is not the one, or not long."""
    start = body.find(b"[")
    end = body.find(b"]", start)
    rest = body[: start + 1] + PLACE + body[end:]
    if start < 0 or end - start < SLICE or rest.count(PLACE) != 1:
        return None
    fields = _fields(rest)
    if fields is None or bytes(fields.get(name, b"")) != b"[" + PLACE + b"]":
        return None
    return fields, body[start + 1 : end]


def _with_raw_list(body: bytes, name: str) -> tuple[Fields, bytes] | None:
    """The same wherever the list is; None where there is no long one."""
    fields = _fields(body)
    text = b"" if fields is None else bytes(fields.get(name, b""))
    if fields is None or len(text) < SLICE or not _OPEN_LIST.match(text):
        return None
    return fields, text[text.index(b"[") + 1 : text.rindex(b"]")]


def _fields(body: bytes) -> Fields | None:
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (ValueError, RecursionError):
        return None


def _values(text: bytes, name: str, kind: TypeAdapter[list[int]] | None) -> list[int] | None:
    """The items of a list; None where they cannot be read in slices.

    Raises:
        ValidationError: As of the whole body, for the first item that is not of the kind.
    """
    values: list[int] = []
    for part in _parts(text):
        if not part.strip():
            return None
        try:
            slice_ = _integers(part) if kind is None else kind.validate_json(b"[" + part + b"]")
        except ValidationError as error:
            if error.errors(include_url=False)[0]["type"] == "json_invalid":
                return None
            raise _moved(error, name, len(values)) from None
        if slice_ is None:
            return None
        values += slice_
    return values


def _integers(part: bytes) -> list[int] | None:
    """The items of a part of a list; None where not all of them are integers."""
    try:
        values: list[int] = msgspec.json.decode(b"[" + part + b"]")
    except (ValueError, RecursionError):
        return None
    return values if set(map(type, values)) == {int} else None


def _moved(error: ValidationError, name: str, offset: int) -> ValidationError:
    """An error of a part of a list as one of the list that the field holds."""
    first = error.errors(include_url=False)[0]
    index, *rest = first["loc"]
    details = InitErrorDetails(
        type=first["type"],
        loc=(name, int(index) + offset, *rest),
        input=first["input"],
        ctx=first.get("ctx", {}),
    )
    return ValidationError.from_exception_data(error.title, [details])


def _parts(text: bytes) -> Iterator[bytes]:
    """Text between commas, many of them at a time."""
    start = 0
    while start <= len(text):
        end = text.find(b",", start + SLICE)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1
