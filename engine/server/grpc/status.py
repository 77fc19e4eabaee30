"""Which status code a call gets that cannot be answered, and who may call.

Knows errors and metadata; knows no method.
"""

import asyncio
import functools
import hashlib
import hmac
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from grpc import StatusCode
from grpc.aio import AbortError

from engine.errors import EngineDeadError, OutOfMemoryError
from workbench.errors import WorkbenchError

logger = logging.getLogger(__name__)

MAX_DETAILS_CHARS = 1000
"""Longest message: it travels in a header."""

Streaming = Callable[[Any, Any, Any], AsyncGenerator[Any, None]]
Answering = Callable[[Any, Any, Any], Awaitable[Any]]


class CallError(Exception):
    """A call that ends with a status other than OK.

    Args:
        code: The status.
        details: For a person, in one line.
    """

    def __init__(self, code: StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


class Keys:
    """The keys that open the server.

    Args:
        keys: Any of them; none: it is open to all.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def check(self, context: Any) -> None:
        """Let in who sends one of them as metadata "authorization: Bearer KEY".

        Raises:
            CallError: UNAUTHENTICATED.
        """
        if not self._digests:
            return
        metadata = dict(context.invocation_metadata() or ())
        scheme, _, key = str(metadata.get("authorization", "")).partition(" ")
        digest = _digest(key.strip())
        # all are compared, so that the time does not tell which was close
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise CallError(
                StatusCode.UNAUTHENTICATED,
                "the API key is missing or wrong: send the metadata authorization: Bearer KEY",
            )


def status_of(error: Exception) -> tuple[StatusCode, str]:
    """The status and the message that an exception deserves; a defect tells no details."""
    if isinstance(error, CallError):
        code = error.code
    elif isinstance(error, EngineDeadError):
        code = StatusCode.UNAVAILABLE
    elif isinstance(error, OutOfMemoryError):
        code = StatusCode.RESOURCE_EXHAUSTED
    elif isinstance(error, WorkbenchError):
        code = StatusCode.INVALID_ARGUMENT
    else:
        return StatusCode.INTERNAL, "the server failed at this call; its log says why"
    message = str(error).partition("\n")[0]
    if len(message) > MAX_DETAILS_CHARS:
        message = message[:MAX_DETAILS_CHARS] + " …"
    return code, message.encode("utf-8", "backslashreplace").decode("utf-8")


def streams_errors(method: Streaming) -> Streaming:
    """Let a method with a stream of responses raise what it likes; the call gets its status."""

    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> AsyncGenerator[Any, None]:
        try:
            async with aclosing(method(self, request, context)) as responses:
                async for response in responses:
                    yield response
        except (asyncio.CancelledError, GeneratorExit, AbortError):
            raise
        except Exception as error:
            await _abort(context, error)

    return call


def answers_errors(method: Answering) -> Answering:
    """The same for a method with one response."""

    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request, context)
        except AbortError:
            raise
        except Exception as error:
            return await _abort(context, error)

    return call


async def _abort(context: Any, error: Exception) -> None:
    code, details = status_of(error)
    if code is StatusCode.INTERNAL and not isinstance(error, CallError):
        logger.error("a call failed", exc_info=error)
    await context.abort(code, details)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
