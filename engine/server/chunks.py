"""Writes the chunks of a stream: what all chunks share is encoded once, a piece is text between.

Knows JSON and the form of events; knows neither completions nor chats.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from engine.server.answers import Placed
from engine.server.usage import Usage

DONE = b"data: [DONE]\n\n"

encode = msgspec.json.encode


class Chunks(Protocol):
    """Writes the chunks of one HTTP request.

    Attributes:
        is_complete: Whether all that was asked has been written.
    """

    @property
    def is_complete(self) -> bool: ...
    def write(self, placed: Sequence[Placed]) -> bytes:
        """The chunks of new outputs."""
        ...

    def end(self) -> bytes:
        """What follows the last chunk."""
        ...


async def chunk_events(
    outputs: AsyncGenerator[list[Placed], None], chunks: Chunks
) -> AsyncGenerator[bytes, None]:
    """The events of a stream; what follows the last chunk comes with it."""
    async with aclosing(outputs):
        async for placed in outputs:
            data = chunks.write(placed)
            if chunks.is_complete:
                yield data + chunks.end()
                return
            yield data
    yield chunks.end()


class ChunkWriter:
    """Chunks of one stream.

    Args:
        head: What every chunk begins with: id, object, created, model.
        opening: JSON between a choice's index and its text.
        closing: JSON after the text.
        plain: The rest of a choice that has nothing but text.
    """

    def __init__(
        self, head: dict[str, Any], opening: bytes, closing: bytes, plain: dict[str, Any]
    ) -> None:
        self._head = b"data: " + encode(head)[:-1] + b',"choices":['
        self._opening = opening
        self._closing = closing
        self._plain = _fields(plain)
        self._openings: dict[int, bytes] = {}

    def piece(
        self, index: int, text: str, fields: dict[str, Any] | None, tail: bytes = b""
    ) -> bytes:
        """A chunk with text.

        Args:
            index: Of the choice.
            text: What is new.
            fields: The rest of the choice; None: the plain one.
            tail: JSON after the choices, with a comma before.
        """
        opening = self._openings.get(index)
        if opening is None:
            opening = self._head + b'{"index":%d,' % index + self._opening
            self._openings[index] = opening
        rest = self._plain if fields is None else _fields(fields)
        return b"".join((opening, encode(text), self._closing, b",", rest, b"}]", tail, b"}\n\n"))

    def choice(
        self,
        choice: dict[str, Any],
        tail: bytes = b"",
        fields: dict[str, Any] | None = None,
    ) -> bytes:
        """A chunk with one choice of any form, and fields beside the choices."""
        beside = b"" if fields is None else b"," + _fields(fields)
        return b"".join((self._head, encode(choice), b"]", beside, tail, b"}\n\n"))

    def without_choice(self, fields: dict[str, Any]) -> bytes:
        """A chunk of its own for what belongs to no choice."""
        return self._head + b"]," + _fields(fields) + b"}\n\n"


def usage_tail(prompt_tokens: int, completion_tokens: int) -> bytes:
    """The tokens of one choice so far, for the end of a chunk."""
    total = prompt_tokens + completion_tokens
    return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % (
        prompt_tokens,
        total,
        completion_tokens,
    )


def last_fields(usage: Usage, fingerprint: str) -> dict[str, Any]:
    """What the last chunk carries: all tokens, with the cached ones where they are known."""
    told = usage.as_dict()
    del told["completion_tokens_details"]
    return {"usage": told, "system_fingerprint": fingerprint}


def _fields(fields: dict[str, Any]) -> bytes:
    return encode(fields)[1:-1]
