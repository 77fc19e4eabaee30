"""Serves a router until a signal ends it: new requests refused, open ones finished, then gone.

Knows sockets and signals, and nothing of routing.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from engine.router.front import Front
from engine.router.http_server import LAST_WORDS_S, server_of
from engine.server.listening import bind
from engine.server.open_files import raise_file_limit, stop_watching

LOGGER = logging.getLogger("workbench.router")
BACKLOG = 4096
SIGNALS = (signal.SIGTERM, signal.SIGINT)
ABORTED = 1


class HTTPLog(logging.LoggerAdapter[logging.Logger]):
    """Takes what is no HTTP for its client's mistake: a line, where a defect gets a traceback."""

    def exception(self, msg: object, *args: object, exc_info: Any = True, **kwargs: Any) -> None:
        """See `logging.Logger.exception`."""
        if isinstance(exc_info, HttpProcessingError):
            self.warning(f"{msg}: %s", *args, " ".join(str(exc_info).split()))
        else:
            super().exception(msg, *args, exc_info=exc_info, **kwargs)


async def run_router(
    front: Front,
    host: str,
    port: int,
    started: Callable[[str], None] = lambda url: None,
) -> int:
    """Serve; the exit status: 0 after draining, 1 if a second signal cut it short.

    Args:
        port: 0: any free one.
        started: Called with the URL once requests are taken.

    Raises:
        ConfigError: It cannot listen there.
    """
    raise_file_limit()
    try:
        with closing(bind(host, port)) as listening:
            return await _run(front, listening, lambda: started(_url(host, listening)))
    finally:
        await front.close()


async def _run(front: Front, listening: socket.socket, started: Callable[[], None]) -> int:
    async with (
        server_of(front.app(), HTTPLog(LOGGER)) as server,
        _watched(front),
        _signals() as signals,
    ):
        await web.SockSite(server, listening, backlog=BACKLOG).start()
        started()
        await signals.get()
        return await _drain(front, signals)


@asynccontextmanager
async def _watched(front: Front) -> AsyncIterator[None]:
    """The backends were checked once, and are checked from now on."""
    await front.monitor.check_all()
    watching = asyncio.ensure_future(front.monitor.run())
    files = asyncio.ensure_future(front.fleet.files.watch())
    try:
        yield
    finally:
        await stop_watching(files)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


@asynccontextmanager
async def _signals() -> "AsyncIterator[asyncio.Queue[int]]":
    """Signals that mean the end, as they come."""
    came: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, came.put_nowait, number)
    try:
        yield came
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def _drain(front: Front, signals: "asyncio.Queue[int]") -> int:
    limit = front.settings.drain_timeout_s
    LOGGER.info("draining: %d open requests, at most %g s", front.num_open, limit)
    front.drain()
    idle = asyncio.ensure_future(front.wait_idle())
    again = asyncio.ensure_future(signals.get())
    try:
        await asyncio.wait({idle, again}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        status = ABORTED if again.done() else 0
        if not idle.done():
            LOGGER.warning("%d requests are broken off", front.num_open)
            front.abort("the router was shut down")
            await asyncio.wait({idle}, timeout=LAST_WORDS_S)
    finally:
        idle.cancel()
        again.cancel()
    return status


def _url(host: str, listening: socket.socket) -> str:
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
