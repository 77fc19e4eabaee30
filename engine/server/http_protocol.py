"""A connection of the HTTP server: uvicorn's, with bounds, and with errors in OpenAI's form.

What uvicorn leaves open is closed here: a head may be so long and no longer, a request that does
not come on is given up, and a client that offers another protocol with its request (HTTP/2, as
Java's does) is answered in this one, body included. Knows bytes and connections, and no endpoint.
"""

import asyncio
from enum import Enum
from http import HTTPStatus
from typing import cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine.server.errors import ApiError, error_body

MAX_HEAD_BYTES = 2**16
MAX_FRAMING = 8
"""Bytes that frame one of a body: a chunk of one byte has five, and a longer size is allowed."""
_OFFERS = (b"upgrade", b"http2-settings")


class _Stage(Enum):
    """What a connection waits for."""

    HEAD = "the head of a request"
    BODY = "the rest of its body"
    ANSWER = "its answer, or the next request"


class HttpProtocol(HttpToolsProtocol):
    """See the module. A request may be silent for as long as uvicorn's `timeout_keep_alive`."""

    _stage = _Stage.HEAD
    _has_begun = False
    _extra_bytes = 0
    _body_bytes = 0
    _body_began_at = 0
    _since = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._enter(_Stage.HEAD)
        self._arm(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._stage is _Stage.BODY:
            self._since = self.loop.time()
        body_before = self._body_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            self._decline_upgrade(data[stopped.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse_malformed(error)
        self._extra_bytes += len(data) - (self._body_bytes - body_before)
        self._check_size()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_begun = True
        self._extra_bytes = 0
        self._body_began_at = self._body_bytes
        self._enter(_Stage.HEAD)

    def on_header(self, name: bytes, value: bytes) -> None:
        # what follows a body is not for those who have decided by what stood before it
        if self._stage is _Stage.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # it comes again, without the offer
        self._enter(_Stage.BODY)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.parser.should_upgrade():
            self._body_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._enter(_Stage.ANSWER)
            super().on_message_complete()

    def _enter(self, stage: _Stage) -> None:
        self._stage = stage
        self._since = self.loop.time()

    def _check_size(self) -> None:
        """Bytes that are no body are few: a line and headers, and what frames small chunks."""
        if self._stage is _Stage.ANSWER or not self._has_begun:
            return
        body_bytes = self._body_bytes - self._body_began_at
        if self._extra_bytes > MAX_HEAD_BYTES + MAX_FRAMING * body_bytes:
            self._refuse(
                431,
                f"the request's line and headers have more than {MAX_HEAD_BYTES} bytes: send less",
            )

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read the request again as if it had not offered another protocol (RFC 9110, 7.8)."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(400, "CONNECT is for proxies, and this is none: ask for a path")
            return
        kept = [(name, value) for name, value in self.headers if name not in _OFFERS]
        lines = [name + b": " + value for name, value in kept]
        line = b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        try:
            self.parser.feed_data(b"\r\n".join([line, *lines, b"", b""]) + rest)
        except httptools.HttpParserError as error:
            self._refuse_malformed(error)

    def _refuse_malformed(self, error: httptools.HttpParserError) -> None:
        self.logger.warning("Invalid HTTP request received.")
        why = " ".join(str(error).split()) or "it cannot be parsed"
        self._refuse(400, f"the request is no HTTP: {why}")

    def _refuse(self, status: int, message: str) -> None:
        """Answer, unless an answer is under way, and close."""
        if self.transport.is_closing():
            return
        if not self._is_answering:
            body = error_body(ApiError(status, message))
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
                "content-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    @property
    def _is_answering(self) -> bool:
        """Whether this request, or one before it, has got a part of its answer already."""
        cycle = self.cycle
        if cycle is None or not cycle.response_started:
            return False
        return self._stage is _Stage.BODY or not cycle.response_complete

    def _arm(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Give a request up that does not come on; one that is not read fast enough may wait."""
        if self.transport.is_closing():
            return
        late = self.loop.time() - self._since - self.timeout_keep_alive
        if self._stage is _Stage.ANSWER or self.flow.read_paused or late < 0:
            self._arm(self.timeout_keep_alive if late >= 0 else -late)
        elif not self._has_begun:
            self.transport.close()
        else:
            missing = self._stage.value
            self._refuse(408, f"{missing} did not come within {self.timeout_keep_alive} s")
