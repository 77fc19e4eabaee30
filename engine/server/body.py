"""Reads the body of a request: its size, its kind, its JSON, its fields.

Knows the limits of a body; knows no endpoint.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from engine.server.errors import ApiError

Result = TypeVar("Result")
Schema = TypeVar("Schema", bound=BaseModel)
BRANCHES = frozenset({"str", "int", "bool", "float", "dict", "list", "chat", "completion"})
"""How pydantic calls the branches of a union."""
LARGE = 2**16
"""Characters or items that would keep other requests waiting for milliseconds."""
MAX_SHOWN_CHARS = 100
"""Of a wrong value, in the message."""


async def read_json(request: Request, schema: type[Schema], max_bytes: int) -> Schema:
    """The body as a schema.

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
    body = await _read(request, max_bytes)
    try:
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
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
        elif size > 2 * max_bytes:
            break
    if size > max_bytes:
        raise ApiError(
            413,
            f"the body has more than {max_bytes} bytes: send a shorter one, or start the server "
            "with a higher max_body_bytes",
            headers={"Connection": "close"},
        )
    return b"".join(chunks)


def _refusal(error: ValidationError) -> ApiError:
    """The first of the errors in one line."""
    first: Mapping[str, Any] = dict(error.errors(include_url=False)[0])
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON: {first['ctx']['error']}")
    param = ".".join(str(part) for part in first["loc"] if _is_field(part))
    if not param:
        return ApiError(400, "the body must be a JSON object")
    if first["type"] == "missing":
        return ApiError(400, f"{param} is missing", param)
    shown = _shown(first["input"])
    return ApiError(400, f"{param}: {first['msg']}, got {shown}", param)


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
