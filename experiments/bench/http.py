"""Requests over raw connections: many at once, each with the times at which its answer came.

Knows connections, their reuse and their failures. It is light, because it may share the machine
with the server: bytes are kept as they come, with their times, and are read as JSON later. Times
are those of CLOCK_MONOTONIC, seconds.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import cast

from engine.server.open_files import is_shortage
from experiments.bench.framing import FramingError, ResponseFraming
from experiments.bench.target import Target

SWEEP_S = 0.5
CANCELLED = "cancelled"


class Exchange:
    """A request and what came back of it.

    Attributes:
        request_id: To tell it from others.
        request: All bytes to send.
        sent_at: When they were given to the connection, or the connection was begun.
        status: Of the response; 0 if there was none.
        times, pieces: When each piece of the response's content came, and the piece.
        ended_at: When it was over, however; NaN before.
        failure: (kind, detail) where the exchange broke off; None where it was whole.
    """

    __slots__ = (
        "_connection", "_is_reused", "ended_at", "failure", "on_end", "pieces", "request",
        "request_id", "sent_at", "status", "times",
    )  # fmt: skip

    def __init__(
        self, request_id: str, request: bytes, on_end: Callable[["Exchange"], None] | None = None
    ) -> None:
        self.request_id = request_id
        self.request = request
        self.on_end = on_end
        self.sent_at = float("nan")
        self.ended_at = float("nan")
        self.status = 0
        self.times: list[float] = []
        self.pieces: list[bytes] = []
        self.failure: tuple[str, str] | None = None
        self._connection: _Connection | None = None
        self._is_reused = False

    @property
    def is_over(self) -> bool:
        return self.ended_at == self.ended_at

    @property
    def last_heard(self) -> float:
        """When the server last said something, or the request was sent."""
        return self.times[-1] if self.times else self.sent_at

    def cancel(self) -> None:
        """Hang up: the server sees its client gone. Does nothing once it is over."""
        self.fail(CANCELLED, "by the client")

    def fail(self, kind: str, detail: str) -> None:
        """End it as failed, and its connection with it."""
        if self.is_over:
            return
        if self._connection is not None:
            self._connection.drop()
        self._end((kind, detail))

    def _end(self, failure: tuple[str, str] | None) -> None:
        self.ended_at = time.perf_counter()
        self.failure = failure
        self._connection = None
        self.request = b""  # a long prompt's bytes would be kept for the whole run
        if self.on_end is not None:
            self.on_end(self)


class _Connection(asyncio.Protocol):
    """One connection of a client; it serves one exchange at a time."""

    def __init__(self, client: "HttpClient") -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._framing = ResponseFraming()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def start(self, exchange: Exchange, is_reused: bool) -> None:
        assert self._transport is not None
        self._exchange = exchange
        self._framing = ResponseFraming()
        exchange._connection = self
        exchange._is_reused = is_reused
        self._transport.write(exchange.request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        exchange = self._exchange
        if exchange is None:  # nobody has asked
            self.drop()
            return
        framing = self._framing
        try:
            content = framing.feed(data)
        except FramingError as error:
            exchange.fail("no HTTP", str(error))
            return
        exchange.status = framing.status
        if content:
            exchange.times.append(now)
            exchange.pieces.append(content)
        if framing.is_over:
            self._over()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.forget(self)
        exchange = self._exchange
        if exchange is None:
            return
        if self._framing.ends_with_connection and exc is None:
            self._over()
            return
        self._exchange = None
        exchange._connection = None
        if exchange._is_reused and not self._framing.status:
            # the server has closed an idle connection while the request was on its way
            self._client.connect(exchange)
            return
        when = "before an answer" if not self._framing.status else "in the middle of the answer"
        exchange._end(("connection lost", f"{when} ({exc})" if exc else when))

    def _over(self) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        if self._framing.keeps_alive:
            self._client.keep(self)
        else:
            self.drop()
        exchange._end(None)

    def drop(self) -> None:
        """Close at once."""
        self._exchange = None
        self._client.forget(self)
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()


class HttpClient:
    """Sends requests to one server from within a running event loop; as many at once as come.

    Args:
        target: The server.
        timeout_s: Longest silence of one request; None: for ever.
        is_verified: Whether the certificate of an https server must be good.
    """

    def __init__(
        self, target: Target, timeout_s: float | None = None, *, is_verified: bool = True
    ) -> None:
        self._target = target
        self._tls = target.tls(is_verified)
        self._timeout_s = timeout_s
        self._idle: dict[_Connection, None] = {}
        self._open: set[Exchange] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._address: tuple[str, int] | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def send(self, exchange: Exchange) -> None:
        """Begin an exchange; its `on_end` is called when it is over."""
        exchange.sent_at = time.perf_counter()
        self._open.add(exchange)
        told = exchange.on_end

        def on_end(ended: Exchange) -> None:
            self._open.discard(ended)
            if told is not None:
                told(ended)

        exchange.on_end = on_end
        if self._timeout_s is not None and self._sweeper is None:
            self._sweep()
        while self._idle:
            connection, _ = self._idle.popitem()  # the one used last is the least likely to be shut
            if connection.is_open:
                connection.start(exchange, is_reused=True)
                return
        self.connect(exchange)

    async def ask(self, exchange: Exchange) -> Exchange:
        """Send and wait for its end."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        told = exchange.on_end

        def on_end(ended: Exchange) -> None:
            if told is not None:
                told(ended)
            if not over.done():
                over.set_result(None)

        exchange.on_end = on_end
        self.send(exchange)
        try:
            await over
        except asyncio.CancelledError:
            exchange.cancel()
            raise
        return exchange

    def connect(self, exchange: Exchange) -> None:
        """Serve the exchange over a new connection."""
        task = asyncio.get_running_loop().create_task(self._connect(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, exchange: Exchange) -> None:
        try:
            host, port = await self._resolved()
            name = self._target.host if self._tls else None
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), host, port, ssl=self._tls, server_hostname=name
            )
        except OSError as error:
            exchange.fail(_kind(error), f"{self._target}: {error}")
            return
        if exchange.is_over:
            connection.drop()
        else:
            connection.start(exchange, is_reused=False)

    async def _resolved(self) -> tuple[str, int]:
        """The server's address, looked up once."""
        if self._address is None:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(
                self._target.host, self._target.port, type=socket.SOCK_STREAM
            )
            self._address = (str(found[0][4][0]), self._target.port)
        return self._address

    def keep(self, connection: _Connection) -> None:
        """Have it for a later exchange."""
        self._idle[connection] = None

    def forget(self, connection: _Connection) -> None:
        self._idle.pop(connection, None)

    def _sweep(self) -> None:
        """End exchanges of which nothing was heard for too long."""
        assert self._timeout_s is not None
        limit = time.perf_counter() - self._timeout_s
        for exchange in [e for e in self._open if e.last_heard < limit]:
            exchange.fail("timeout", f"nothing came for {self._timeout_s:g} s")
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(min(SWEEP_S, self._timeout_s), self._sweep)

    def cancel_all(self) -> None:
        """Hang up on every open exchange."""
        for exchange in list(self._open):
            exchange.cancel()

    async def close(self) -> None:
        """Cancel what is open and close all connections."""
        self.cancel_all()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._idle):
            connection.drop()
        await asyncio.sleep(0)  # the transports close in the loop's next turn


def _kind(error: OSError) -> str:
    """A few words that are the same for all failures of a kind."""
    if is_shortage(error):
        return "the client has too many open files"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, socket.gaierror):
        return "unknown host"
    return "no connection"
