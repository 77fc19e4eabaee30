"""Small servers that behave as a test says, and a router in front of them."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy

from engine.router.api_keys import ApiKey
from engine.router.backend import Backend, make_backends
from engine.router.front import Front
from engine.router.http_server import server_of
from engine.router.settings import HealthSettings, QueueSettings, RouterSettings
from workbench.router import RoundRobin, Router

BOUND_S = 20.0
LOGGER = logging.getLogger(__name__)
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Seen:
    """A request that arrived."""

    path: str
    headers: CIMultiDictProxy[str]
    body: Any


class FakeServer:
    """An OpenAI-compatible server without a model.

    Attributes:
        answer: What it does with a request; a short JSON answer if nothing else is set.
        health: Status of its health check.
        load: What `/load` says; None: 404.
        metrics: What `/metrics` says; None: 404.
        disconnected: Set when a client left before its answer was whole.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.answer: Behaviour = self.whole
        self.health = 200
        self.load: dict[str, Any] | None = None
        self.metrics: str | None = None
        self.models = ["tiny"]
        self.seen: list[Seen] = []
        self.disconnected = asyncio.Event()
        self.arrived = asyncio.Event()
        self.gate = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._transports: set[asyncio.Transport] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/load", self._load)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_route("*", "/{path:.*}", self._any)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def kill(self) -> None:
        """Gone at once, like a killed process: connections are reset, the port is closed."""
        assert self._runner is not None
        for site in list(self._runner.sites):
            await site.stop()
        for transport in self._transports:
            transport.abort()
        await self._runner.cleanup()
        self._runner = None

    async def stop(self) -> None:
        if self._runner is not None:
            await self.kill()

    async def whole(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"from": self.name, "usage": {"total_tokens": 5}})

    def says(self, status: int, **headers: str) -> None:
        """Answer everything with an error."""
        body = {"error": {"message": f"from {self.name}", "type": "x", "code": status}}

        async def answer(request: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status, headers=headers)

        self.answer = answer

    def streams(self, pieces: Iterable[bytes], *, gate_after: int | None = None) -> None:
        """Answer with these pieces of an event stream; wait for the gate after some of them."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for number, piece in enumerate(pieces):
                if number == gate_after:
                    await self.gate.wait()
                await response.write(piece)
            await response.write_eof()
            return response

        self.answer = answer

    def holds(self) -> None:
        """Answer nothing before the gate opens."""

        async def answer(request: web.Request) -> web.StreamResponse:
            await self.gate.wait()
            return await self.whole(request)

        self.answer = answer

    async def _any(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        assert isinstance(request.transport, asyncio.Transport)
        self._transports.add(request.transport)
        self.seen.append(Seen(request.path_qs, request.headers, _json(body)))
        self.arrived.set()
        try:
            return await self.answer(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.disconnected.set()
            raise

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=self.health)

    async def _load(self, request: web.Request) -> web.Response:
        return web.Response(status=404) if self.load is None else web.json_response(self.load)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(status=404) if self.metrics is None else web.Response(text=self.metrics)

    async def _models(self, request: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "owned_by": self.name} for name in self.models]
        return web.json_response({"object": "list", "data": data})


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body


@dataclass
class Routed:
    """A router, the servers behind it, and a client in front of it."""

    front: Front
    servers: list[FakeServer]
    backends: Sequence[Backend]
    client: aiohttp.ClientSession
    url: str
    clock: Clock = field(default_factory=Clock)

    async def post(self, path: str = "/v1/completions", **body: Any) -> aiohttp.ClientResponse:
        response = await self.client.post(self.url + path, json=body or {"prompt": "hi"})
        await response.read()
        return response

    async def source(self, path: str = "/v1/completions", **body: Any) -> str:
        """Which server answered."""
        response = await self.post(path, **body)
        assert response.status == 200, await response.text()
        name: str = (await response.json())["from"]
        return name

    async def talk(self, *pieces: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON of what is said to raw bytes, once the connection is closed."""
        reader, writer = await self.connect()
        for piece in pieces:
            writer.write(piece)
        said = await reader.read()
        writer.close()
        head, _, body = said.partition(b"\r\n\r\n")
        assert b"application/json" in head
        return int(head.split(b" ")[1]), json.loads(body)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of a client that speaks for itself."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        return await asyncio.open_connection(host, int(port))

    async def error(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        error: dict[str, Any] = (await response.json())["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "\n" not in error["message"]
        return error

    async def check(self, times: int = 1) -> None:
        for _ in range(times):
            await self.front.monitor.check_all()

    def metric(self, name: str, **labels: str) -> float:
        value = self.front.metrics.registry.get_sample_value(f"workbench_router_{name}", labels)
        return value or 0.0


@asynccontextmanager
async def routed(
    num_servers: int = 2,
    policy: Router | None = None,
    keys: Iterable[ApiKey] = (),
    health: HealthSettings | None = None,
    queue: QueueSettings | None = None,
    prepare: Callable[[list[FakeServer]], None] = lambda servers: None,
    idle_s: float = BOUND_S,
    **settings: Any,
) -> AsyncIterator[Routed]:
    """Servers that are up, and a router that has checked them once; its clock stands still."""
    async with asyncio.timeout(BOUND_S), AsyncExitStack() as stack:
        servers = [FakeServer(f"s{i}") for i in range(num_servers)]
        for server in servers:
            await server.start()
            stack.push_async_callback(server.stop)
        prepare(servers)
        made = RouterSettings(
            health=health or HealthSettings(), queue=queue or QueueSettings(), **settings
        )
        backends = make_backends([server.url for server in servers], made)
        clock = Clock()
        numbers = iter(range(10**6))
        front = Front(
            policy or RoundRobin(), backends, made, keys,
            clock=clock, new_id=lambda: f"id-{next(numbers)}",
        )  # fmt: skip
        stack.push_async_callback(front.close)
        runner = await stack.enter_async_context(server_of(front.app(), LOGGER, idle_s))
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await front.monitor.check_all()
        client = await stack.enter_async_context(aiohttp.ClientSession())
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield Routed(front, servers, backends, client, url, clock)
