"""Runs an app until a signal says otherwise: listens, drains, ends.

The first SIGTERM or SIGINT lets open requests end while new ones are refused; a second one ends
them at once. Knows the life of a server; knows no endpoint.
"""

import asyncio
import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI

from engine.async_llm import AsyncLLM
from engine.server.http_protocol import HttpProtocol
from engine.server.listening import bind, url_of
from engine.server.logging import log_config
from engine.server.open_files import OpenFiles, raise_file_limit, stop_watching
from engine.server.settings import ServerSettings
from engine.server.state import ServerState
from engine.server.stop import Stop
from engine.server.supervisor import kill_silent, supervise

logger = logging.getLogger(__name__)

BACKLOG = 4096
LAST_WORDS_S = 2.0
"""Seconds in which requests that were ended may still tell their clients so."""


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on uvloop, or on asyncio's own loop where that is not installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def run_server(
    app: FastAPI,
    llm: AsyncLLM,
    settings: ServerSettings,
    *,
    on_listening: Callable[[str], None] | None = None,
    stop: Stop | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, and return when all is over; the engine is left to the caller.

    Args:
        app: Made by `build_app` for this engine.
        llm: The engine.
        settings: Of the server.
        on_listening: Told the URL as soon as connections are taken.
        stop: Lets a program say what signals say; None: only signals can.

    Raises:
        ConfigError: It cannot listen where it should.
    """
    raise_file_limit()
    # what is there now stays: the collector of cycles need not look at it while streams run
    gc.collect()
    gc.freeze()
    # to read what is large takes the interpreter, which several threads would keep from the loop
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1, "large"))
    sockets = None if settings.uds else [bind(settings.host, settings.port)]
    stop = stop or Stop()
    stop.listen()
    supervisors = [asyncio.create_task(supervise(llm, settings.max_core_restarts))]
    if settings.restart_silence:
        supervisors.append(asyncio.create_task(kill_silent(llm, settings)))
    files = asyncio.create_task(OpenFiles().watch())
    try:
        async with _listening(app, settings, sockets) as serving:
            where = url_of(settings, sockets)
            logger.info("serving %s at %s", settings.model_name, where)
            if on_listening is not None:
                on_listening(where)
            await _first_of(stop.first, serving)
            await _drain(app.state.server, llm, settings.drain_timeout, stop)
    finally:
        stop.close()
        for supervisor in supervisors:
            supervisor.cancel()
        await stop_watching(files)
    logger.info("the server has ended")


@asynccontextmanager
async def _listening(
    app: FastAPI, settings: ServerSettings, sockets: list[socket.socket] | None
) -> AsyncIterator["asyncio.Task[None]"]:
    """uvicorn, while it takes connections."""
    server = _Server(_uvicorn_config(app, settings))
    serving = asyncio.create_task(server.serve(sockets))
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if serving.done():
            serving.result()
        yield serving
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without its own handling of signals."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _uvicorn_config(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        uds=settings.uds,
        root_path=settings.root_path,
        http=HttpProtocol,
        ws="none",
        log_config=log_config(settings.log_format, settings.log_level),
        log_level=settings.log_level,
        access_log=settings.access_log,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.timeout_keep_alive,
        timeout_graceful_shutdown=int(LAST_WORDS_S),
        ssl_keyfile=settings.ssl_keyfile,
        ssl_certfile=settings.ssl_certfile,
    )


async def _first_of(event: asyncio.Event, task: "asyncio.Task[None]") -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait((waiting, task), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


async def _drain(state: ServerState, llm: AsyncLLM, timeout: float, stop: Stop) -> None:
    """Let open requests end, for so many seconds or until the second signal; then end them."""
    state.is_draining = True
    if state.server_load:
        logger.info("draining: %d requests have up to %g s", state.server_load, timeout)
    idle = asyncio.create_task(state.wait_idle())
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await _first_of(stop.second, idle)
    if state.open_ids:
        logger.warning("%d requests were not finished and are aborted", len(state.open_ids))
        await llm.abort(state.open_ids)
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS_S):
            await idle
    idle.cancel()
