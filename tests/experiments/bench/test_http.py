"""Connections, against a small server in a thread."""

import asyncio
import socket

import pytest

from experiments.bench.answer import read_answer
from experiments.bench.http import Exchange, HttpClient
from experiments.bench.request_body import COMPLETIONS, JSON_HEADERS, RequestBody
from experiments.bench.target import Target, with_body
from tests.engine.server.test_open_files import no_file_left
from tests.experiments.bench.fake_server import FakeServer, Script
from workbench.errors import ConfigError
from workbench.workload.base import WorkloadRequest

BOUND_S = 20.0


def request(target, tokens=3, name="r", **body):
    made = RequestBody(endpoint=COMPLETIONS, model="fake", **body)
    head = target.head("POST", COMPLETIONS, JSON_HEADERS)
    return with_body(head, made.of([3, 4], WorkloadRequest(name, 0.0, 2, tokens)), name)


def run(url, work, timeout_s=BOUND_S):
    async def all_of_it():
        target = Target.of(url)
        client = HttpClient(target, timeout_s)
        try:
            return await asyncio.wait_for(work(client, target), BOUND_S)
        finally:
            await client.close()

    return asyncio.run(all_of_it())


def ask_once(url, timeout_s=BOUND_S, tokens=3):
    async def work(client, target):
        return await client.ask(Exchange("r", request(target, tokens)))

    return read_answer(run(url, work, timeout_s))


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_an_answer_and_its_times(line_end):
    with FakeServer(Script(line_end=line_end)) as server:
        answer = ask_once(server.url)
    assert answer.failure is None
    assert len(answer.token_times) == 3
    assert answer.sent_at <= answer.token_times[0]
    assert (answer.token_times[1:] >= answer.token_times[:-1]).all()
    assert answer.token_times[-1] <= answer.ended_at
    assert server.bodies[0]["prompt"] == [3, 4]
    assert "x-request-id: r" in server.heads[0].lower()


def test_connections_are_used_again_and_opened_as_needed():
    async def work(client, target):
        for _ in range(3):
            await client.ask(Exchange("r", request(target)))
        await asyncio.gather(*(client.ask(Exchange("r", request(target))) for _ in range(4)))

    with FakeServer() as server:
        run(server.url, work)
    assert len(server.bodies) == 7
    assert server.num_connections == 4


def test_a_connection_that_the_server_has_closed_is_replaced():
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        if not reader.at_eof():
            await reader.readuntil(b"\r\n\r\n")  # the next request finds a closed door
        writer.close()

    async def work():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        target = Target("http", "127.0.0.1", server.sockets[0].getsockname()[1])
        client = HttpClient(target, BOUND_S)
        plain = (target.head("GET", "/", {}) + "\r\n").encode()
        found = [await client.ask(Exchange("r", plain)) for _ in range(2)]
        await client.close()
        server.close()
        return found

    found = asyncio.run(asyncio.wait_for(work(), BOUND_S))
    assert [(each.status, each.failure) for each in found] == [(200, None)] * 2


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (Script(cut=0), "connection lost"),
        (Script(cut=2), "connection lost"),
        (Script(statuses=[503]), "status 503"),
        (Script(hangs=True), "timeout"),
    ],
)
def test_failures_have_a_kind(script, kind):
    with FakeServer(script) as server:
        answer = ask_once(server.url, timeout_s=0.05 if kind == "timeout" else BOUND_S)
    assert answer.failure is not None
    assert answer.failure[0] == kind


def test_nobody_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused for sure
        answer = ask_once(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert answer.failure is not None
    assert answer.failure[0] == "connection refused"
    assert "127.0.0.1" in answer.error


def test_a_client_without_files_does_not_blame_the_server():
    async def work(client, target):
        with no_file_left():
            return await client.ask(Exchange("r", request(target)))

    with FakeServer(Script()) as server:
        kind, detail = run(server.url, work).failure
    assert kind == "the client has too many open files"
    assert "Too many open files" in detail


def test_a_cancelled_request_hangs_up():
    async def work(client, target):
        exchange = Exchange("r", request(target))
        task = asyncio.ensure_future(client.ask(exchange))
        while not exchange.pieces:
            await asyncio.sleep(0.001)
        exchange.cancel()
        await task
        return exchange

    with FakeServer(Script(hangs=True)) as server:
        exchange = run(server.url, work)
    assert exchange.failure == ("cancelled", "by the client")
    assert server.num_gone == 1


def test_requests_that_are_open_when_the_client_closes_end():
    async def work(client, target):
        exchange = Exchange("r", request(target))
        client.send(exchange)
        await client.close()
        return exchange

    with FakeServer(Script(hangs=True)) as server:
        assert run(server.url, work).failure == ("cancelled", "by the client")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://h:1/", Target("http", "h", 1)),
        ("h:8000", Target("http", "h", 8000)),
        ("https://h/v/", Target("https", "h", 443, "/v")),
        ("http://[::1]:5", Target("http", "::1", 5)),
    ],
)
def test_urls(url, found):
    assert Target.of(url) == found
    assert Target.of(str(found)) == found


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h:port", "http://h:99999"])
def test_no_urls(url):
    with pytest.raises(ConfigError, match="URL"):
        Target.of(url)


def test_a_header_cannot_smuggle_another():
    with pytest.raises(ConfigError, match="header"):
        Target("http", "h", 1).head("GET", "/", {"X": "a\r\nY: b"})
