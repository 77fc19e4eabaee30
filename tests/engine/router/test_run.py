"""From the start to the last signal."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import pytest

from engine.router.backend import make_backends
from engine.router.front import Front
from engine.router.run import run_router
from engine.router.settings import RouterSettings
from tests.engine.router.fakes import BOUND_S, FakeServer
from workbench.errors import ConfigError
from workbench.router import RoundRobin


@dataclass
class Running:
    """A router that serves, and a request that its backend holds."""

    server: FakeServer
    front: Front
    client: aiohttp.ClientSession
    url: str
    asked: "asyncio.Task[tuple[int, bytes]]"


def run(end: Callable[[Running], Awaitable[None]], drain_timeout_s: float = BOUND_S) -> int:
    """Serves with one open request, does `end`; the exit status."""

    async def serve() -> int:
        server = FakeServer("s0")
        await server.start()
        server.holds()
        settings = RouterSettings(drain_timeout_s=drain_timeout_s)
        front = Front(RoundRobin(), make_backends([server.url], settings), settings)
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.ensure_future(run_router(front, "127.0.0.1", 0, url.set_result))

        async def ask() -> tuple[int, bytes]:
            async with client.post(await url + "/v1/completions", json={"prompt": "x"}) as answer:
                return answer.status, await answer.read()

        async with asyncio.timeout(BOUND_S), aiohttp.ClientSession() as client:
            asked = asyncio.ensure_future(ask())
            await server.arrived.wait()
            await end(Running(server, front, client, await url, asked))
            status = await serving
        await server.stop()
        return status

    return asyncio.run(serve())


def _signal() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_open_requests_end_and_new_ones_are_refused() -> None:
    async def end(it: Running) -> None:
        _signal()
        while not it.front.is_draining:
            await asyncio.sleep(0)
        async with it.client.post(it.url + "/v1/completions") as refused:
            assert refused.status == 503
            assert "Retry-After" in refused.headers
        it.server.gate.set()
        assert (await it.asked)[0] == 200

    assert run(end) == 0


def test_what_is_open_at_the_limit_is_told_so() -> None:
    async def end(it: Running) -> None:
        _signal()
        status, body = await it.asked
        assert status == 503
        assert b"shut down" in body

    assert run(end, drain_timeout_s=0.0) == 0


def test_a_second_signal_aborts() -> None:
    async def end(it: Running) -> None:
        _signal()
        while not it.front.is_draining:
            await asyncio.sleep(0)
        _signal()
        assert (await it.asked)[0] == 503

    assert run(end) == 1


def test_an_address_in_use_is_told_in_one_line() -> None:
    async def serve() -> None:
        server = FakeServer("s0")
        await server.start()
        settings = RouterSettings()
        front = Front(RoundRobin(), make_backends([server.url], settings), settings)
        try:
            port = int(server.url.rpartition(":")[2])
            with pytest.raises(ConfigError, match=str(port)):
                await run_router(front, "127.0.0.1", port)
            assert front.session.closed
        finally:
            await front.close()
            await server.stop()

    asyncio.run(serve())


def test_what_is_no_http_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def end(it: Running) -> None:
        host, _, port = it.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n")
        assert b" 400 " in await reader.read()
        writer.close()
        it.server.gate.set()
        await it.asked
        os.kill(os.getpid(), signal.SIGTERM)

    assert run(end) == 0
    (told,) = (record for record in caplog.records if "Content-Length" in record.getMessage())
    assert told.levelname == "WARNING"
    assert told.exc_info is None
    assert "\n" not in told.getMessage()
