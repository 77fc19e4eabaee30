"""aiohttp's server with bounds, and with its own errors in OpenAI's form.

Those are told before a request has a handler: a line, a header or a chunk that is no HTTP, and
expectations that nobody can meet. A client that connects and asks nothing is not waited for longer
than an idle one. Knows connections, and nothing of what is asked.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from engine.router.errors import RouterError
from engine.router.headers import REQUEST_ID

IDLE_S = 75.0
"""Longer than proxies in front keep a connection, which must not be closed as they use it."""
LAST_WORDS_S = 2.0


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("_waiting",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._waiting = asyncio.get_running_loop().call_later(
            self.keepalive_timeout, self.force_close
        )

    def connection_lost(self, exc: BaseException | None) -> None:
        self._waiting.cancel()
        super().connection_lost(exc)

    def has_asked(self) -> None:
        """The head of a request has come."""
        self._waiting.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See `aiohttp.web.RequestHandler.handle_error`, which logs it."""
        super().handle_error(request, status, exc, message)
        if isinstance(exc, LineTooLong):
            status = 431
        why = " ".join((message or "").split()).removesuffix(" ^")  # which points into a line
        told = response_of(
            RouterError(status, f"the request is no HTTP that is taken here: {why}")
            if status < 500
            else RouterError(status, "the router failed; its log says why")
        )
        told.force_close()
        return told


class HttpServer(web.Server):
    """Makes a connection's handler of each connection.

    Args:
        server: That of an application, whose requests and handlers are used.
        options: Of its connections.
    """

    def __init__(self, server: web.Server, options: Mapping[str, Any]) -> None:
        self._handle = server.request_handler
        self._options = dict(options)
        super().__init__(
            self._answer,
            request_factory=server.request_factory,
            handler_cancellation=True,
        )

    def __call__(self) -> Connection:
        return Connection(self, loop=asyncio.get_running_loop(), **self._options)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, Connection):
            request.protocol.has_asked()
        try:
            return await self._handle(request)
        except web.HTTPException as error:
            return response_of(RouterError(error.status, error.text or error.reason))


def response_of(error: RouterError) -> web.Response:
    """The answer that is an error, with an id of its own where the request has none."""
    headers = {REQUEST_ID: uuid4().hex, **error.headers}
    return web.Response(
        status=error.status, body=error.body, headers=headers, content_type="application/json"
    )


@asynccontextmanager
async def server_of(
    app: web.Application,
    logger: "logging.Logger | logging.LoggerAdapter[logging.Logger]",
    idle_s: float = IDLE_S,
) -> AsyncIterator[web.ServerRunner]:
    """An application's server, for sites to be added to; handlers of clients who left end.

    Args:
        idle_s: Longest silence of a client that has asked nothing yet, or nothing more.
    """
    options = {"access_log": None, "logger": logger, "keepalive_timeout": idle_s}
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        assert runner.server is not None
        served = web.ServerRunner(HttpServer(runner.server, options), shutdown_timeout=LAST_WORDS_S)
        await served.setup()
        try:
            yield served
        finally:
            await served.cleanup()
    finally:
        await runner.cleanup()
