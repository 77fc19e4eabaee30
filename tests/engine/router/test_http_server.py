"""Clients that speak no HTTP, too much of it, or nothing."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.engine.router.fakes import routed

POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost x\r\n\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", 400),
        (POST + b"X-Long: " + b"a" * 20000 + b"\r\n\r\n", 431),
        (POST + b"Expect: a-pony\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", 417),
    ],
)
def test_what_cannot_be_taken_gets_an_error_in_openais_form(said: bytes, status: int) -> None:
    async def test() -> None:
        async with routed(1) as it:
            told, body = await it.talk(said)
            assert told == body["error"]["code"] == status
            assert set(body["error"]) == {"message", "type", "param", "code"}
            assert body["error"]["type"] in ("BadRequestError", "RequestTooLargeError")
            assert "\n" not in body["error"]["message"]
            assert "^" not in body["error"]["message"]
            assert it.servers[0].seen == []
            assert await it.source() == "s0"

    run(test())


def test_who_connects_and_asks_nothing_is_not_waited_for() -> None:
    async def test() -> None:
        async with routed(1, idle_s=0.05) as it:
            for begun in (b"", POST):
                reader, writer = await it.connect()
                writer.write(begun)
                assert await reader.read() == b""
                writer.close()

    run(test())


def test_a_long_answer_is_no_silence() -> None:
    async def test() -> None:
        async with routed(1, idle_s=0.05) as it:
            it.servers[0].holds()
            asked = asyncio.ensure_future(it.post())
            await it.servers[0].arrived.wait()
            reader, writer = await it.connect()
            assert await reader.read() == b""  # as long as others are waited for
            writer.close()
            it.servers[0].gate.set()
            assert (await asked).status == 200

    run(test())


def test_a_body_that_does_not_come_on_is_given_up() -> None:
    async def test() -> None:
        async with routed(1, body_timeout_s=0.05) as it:
            reader, writer = await it.connect()
            writer.write(POST + b"Content-Length: 10\r\n\r\n{")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 408 " in head
            assert b"Connection: close" in head
            assert b'"RequestTimeoutError"' in await reader.readuntil(b"}}")
            assert it.front.num_open == 0
            assert it.servers[0].seen == []
            writer.close()

    run(test())
