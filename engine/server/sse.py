"""Server-sent events: bytes go to the socket as they come, without a layer between.

Knows the form of events and of an error among them; knows nothing of answers.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from engine.server.chunks import DONE
from engine.server.disconnect import while_connected
from engine.server.errors import as_api_error, error_body

logger = logging.getLogger(__name__)

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class EventStream(Response):
    """A response that streams events.

    The head is sent with the first events: an error before them is an ordinary answer with a
    status of its own, and a router may still try elsewhere. An error after them becomes an event.

    Args:
        events: Pieces of one or more events, complete with their empty lines. Closed at the end,
            also when the client leaves.
    """

    background: BackgroundTask | None = None

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self.status_code = 200
        self.raw_headers = list(HEADERS)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("http_version") == "1.0":
            send = _in_one_piece(send)
        await while_connected(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        is_started = False
        try:
            async with aclosing(self._events) as events:
                async for data in events:
                    if not is_started:
                        is_started = True
                        await send(self._head())
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not is_started:
                raise
            await send({"type": "http.response.body", "body": _told(error), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _head(self) -> dict[str, object]:
        headers = list(self.raw_headers)
        return {"type": "http.response.start", "status": 200, "headers": headers}


def _in_one_piece(send: Send) -> Send:
    """Holds an answer back until its length is known: HTTP/1.0 knows no chunks."""
    start: dict[str, Any] = {}
    body = bytearray()

    async def hold(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        body.extend(message["body"])
        if not message["more_body"]:
            headers = [*start["headers"], (b"content-length", b"%d" % len(body))]
            await send(start | {"headers": headers})
            await send({"type": "http.response.body", "body": bytes(body), "more_body": False})

    return hold


def _told(error: Exception) -> bytes:
    """An error as the last events of a stream."""
    told = as_api_error(error)
    if told.status == 500 and told is not error:
        logger.error("a stream broke off", exc_info=error)
    return b"data: " + error_body(told) + b"\n\n" + DONE
