"""A router without a file left for a connection: its own trouble, and no backend's."""

import asyncio
import json

from tests.engine.router.fakes import Routed, routed
from tests.engine.server.listening import recorded
from tests.engine.server.test_open_files import no_file_left

REQUEST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


async def ask(it: Routed, requests: list[bytes]) -> list[bytes]:
    """What is answered where no connection to a backend can be made, nor is kept from before."""
    connections = []
    for _ in requests:
        reader, writer = await it.connect()
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"}")
        connections.append((reader, writer))
    for server in it.servers:
        server.holds()
    kept = [asyncio.ensure_future(it.post()) for _ in it.servers]
    for server in it.servers:
        await server.arrived.wait()
    with no_file_left():
        for (_, writer), request in zip(connections, requests, strict=True):
            writer.write(request)
        answers = [await reader.read() for reader, _ in connections]
        await it.check(5)
    for server in it.servers:
        server.gate.set()
    for task in kept:
        assert (await task).status == 200
    for _, writer in connections:
        writer.close()
    return answers


def test_no_backend_is_blamed_and_clients_are_told_when_to_come_back() -> None:
    async def test() -> None:
        async with routed(2) as it:
            for answer in await ask(it, [REQUEST, REQUEST, MODELS]):
                head, _, body = answer.partition(b"\r\n\r\n")
                assert b" 503 " in head
                assert b"Retry-After: 1" in head
                assert b"Connection: close" in head  # which frees one
                assert "too many connections" in json.loads(body)["error"]["message"]
            assert [backend.health.num_ejections for backend in it.backends] == [0, 0]
            assert [backend.num_open for backend in it.backends] == [0, 0]
            assert it.metric("retries_total", reason="refused") == 0
            assert {await it.source() for _ in range(2)} == {"s0", "s1"}

    with recorded("engine.server.open_files") as records:
        asyncio.run(test())
    assert len(records) == 1
