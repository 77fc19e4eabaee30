"""Reads the body of a request: its size, its kind, its JSON, its fields.

Knows the limits of a body; knows no endpoint.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request

from engine.server.errors import ApiError
from engine.server.long_list import read_with_list

Result = TypeVar("Result")
Schema = TypeVar("Schema", bound=BaseModel)
BRANCHES = frozenset({"str", "int", "bool", "float", "dict", "list", "chat", "completion"})
"""How pydantic calls the branches of a union."""
LARGE = 2**16
"""Characters or items that would keep other requests waiting for milliseconds."""
MAX_SHOWN_CHARS = 100
"""Of a wrong value, in the message."""


async def read_json(
    request: Request,
    schema: type[Schema],
    max_bytes: int,
    long_list: str = "",
    items: TypeAdapter[list[int]] | None = None,
) -> Schema:
    """The body as a schema.

    Args:
        request: Of HTTP.
        schema: What it should be.
        max_bytes: Longest body.
        long_list: Field that may hold very many integers.
        items: What it must be; None: any value.

    Raises:
        ApiError: 400, 413 or 415.
        ClientDisconnect: The client left while it sent.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # also keeps pages of other sites from posting without being asked for CORS
        raise ApiError(
            415,
            f"Content-Type is {kind[:MAX_SHOWN_CHARS]!r}: send the body as application/json",
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise ApiError(
            415,
            f"Content-Encoding is {encoding[:MAX_SHOWN_CHARS]!r}: send the body uncompressed",
            headers={"Accept-Encoding": "identity"},
        )
    body = await _read(request, max_bytes)
    try:
        if long_list and len(body) >= LARGE:
            return await asyncio.to_thread(read_with_list, schema, body, long_list, items)
        return await off_loop(len(body), schema.model_validate_json, body)
    except ValidationError as error:
        raise _refusal(error) from None


async def off_loop(size: int, work: Callable[..., Result], *args: Any) -> Result:
    """The result of a function, which runs in a thread where the size of its task says so."""
    return work(*args) if size < LARGE else await asyncio.to_thread(work, *args)


async def _read(request: Request, max_bytes: int) -> bytes:
    """The body; what is too long is read to twice the limit, so that the answer arrives."""
    chunks: list[bytes] = []
    size = 0
    if _is_announced(request, max_bytes):
        raise _too_long(max_bytes)
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
        elif size > 2 * max_bytes:
            break
    if size > max_bytes:
        raise _too_long(max_bytes)
    return b"".join(chunks)


def _is_announced(request: Request, max_bytes: int) -> bool:
    """Whether a client that asks before it sends would send too much."""
    length = request.headers.get("content-length", "")
    is_asked = request.headers.get("expect", "").lower() == "100-continue"
    return is_asked and length.isdecimal() and int(length) > max_bytes


def _too_long(max_bytes: int) -> ApiError:
    return ApiError(
        413,
        f"the body has more than {max_bytes} bytes: send a shorter one, or start the server "
        "with a higher max_body_bytes",
        headers={"Connection": "close"},
    )


def _refusal(error: ValidationError) -> ApiError:
    """The first of the errors in one line."""
    first = _telling(error.errors(include_url=False))
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON: {first['ctx']['error']}")
    param = ".".join(str(part) for part in first["loc"] if _is_field(part))
    if not param:
        return ApiError(400, "the body must be a JSON object")
    if first["type"] == "missing":
        return ApiError(400, f"{param} is missing", param)
    shown = _shown(first["input"])
    return ApiError(400, f"{param}: {first['msg']}, got {shown}", param)


def _telling(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first error; of the branches of a union the one that the value came furthest in."""
    first = errors[0]
    place = first["loc"]
    if not place or _is_field(place[-1]):
        return first
    branches = [each for each in errors if each["loc"][: len(place) - 1] == place[:-1]]
    return max(branches, key=lambda each: (not each["type"].endswith("_type"), len(each["loc"])))


def _is_field(part: int | str) -> bool:
    """Whether a part of an error's place is of the body, and no branch that the schema tried."""
    if isinstance(part, int):
        return True
    return part not in BRANCHES and part.replace("_", "").isalnum() and not part[:1].isupper()


def _shown(value: Any) -> str:
    if isinstance(value, str | int | float | bool) or value is None:
        text = repr(value[: MAX_SHOWN_CHARS + 1] if isinstance(value, str) else value)
        return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…"
    return "an object" if isinstance(value, dict) else "a list"
