"""The way of a request: passed on piece by piece, retried before an answer, never after."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from engine.router.settings import HealthSettings
from tests.engine.router.fakes import FakeServer, Routed, routed
from workbench.router import RoundRobin

EVENTS = [b'data: {"token": %d}\n\n' % i for i in range(5)]
DONE = b"data: [DONE]\n\n"


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_a_request_and_its_answer_pass_through() -> None:
    async def test() -> None:
        async with routed(1) as it:
            headers = {
                "X-Request-Id": "mine",
                "Authorization": "Bearer theirs",
                "Connection": "X-Hop, keep-alive",
                "X-Hop": "1",
                "TE": "trailers",
                "X-Other": "kept",
            }
            response = await it.client.post(
                it.url + "/v1/chat/completions?a=b%20c", json={"messages": []}, headers=headers
            )
            assert (await response.json())["from"] == "s0"
            assert response.headers["X-Request-Id"] == "mine"
            assert response.headers["X-Workbench-Backend"] == it.backends[0].name
            (seen,) = it.servers[0].seen
            assert seen.path == "/v1/chat/completions?a=b%20c"
            assert seen.body == {"messages": []}
            assert seen.headers["X-Request-Id"] == "mine"
            assert seen.headers["Authorization"] == "Bearer theirs"
            assert seen.headers["X-Other"] == "kept"
            assert seen.headers["X-Forwarded-For"] == "127.0.0.1"
            assert "X-Hop" not in seen.headers
            assert "TE" not in seen.headers
            assert it.metric("requests_total", backend=it.backends[0].name, status="200") == 1

    run(test())


def test_an_id_is_made_where_there_is_none_that_can_be_passed_on() -> None:
    async def test() -> None:
        async with routed(1) as it:
            for given in ({"A": "1"}, {"X-Request-Id": "x" * 200}, {"X-Request-Id": "caf\u00e9"}):
                response = await it.client.post(it.url + "/v1/completions", headers=given)
                assert response.headers["X-Request-Id"].startswith("id-")
                assert it.servers[0].seen[-1].headers["X-Request-Id"].startswith("id-")

    run(test())


def test_a_stream_passes_piece_by_piece_and_in_order() -> None:
    async def test() -> None:
        async with routed(1) as it:
            server = it.servers[0]
            server.streams([*EVENTS, DONE], gate_after=3)
            async with it.client.post(it.url + "/v1/completions", json={"prompt": "x"}) as response:
                assert response.content_type == "text/event-stream"
                early = await response.content.readexactly(len(b"".join(EVENTS[:3])))
                assert early == b"".join(EVENTS[:3])  # they came while the server still waits
                server.gate.set()
                assert await response.content.read() == b"".join(EVENTS[3:]) + DONE

    run(test())


def test_a_long_answer_that_is_no_stream_passes_too() -> None:
    async def test() -> None:
        async with routed(1) as it:
            text = "x" * (3 << 20)

            async def answer(request: Any) -> Any:
                return aiohttp.web.json_response({"text": text})

            it.servers[0].answer = answer
            response = await it.post()
            assert (await response.json())["text"] == text

    run(test())


def test_a_dead_backend_is_noticed_by_the_first_request_which_is_tried_elsewhere() -> None:
    async def test() -> None:
        async with routed(2) as it:
            await it.servers[0].kill()
            assert await it.source() == "s1"
            assert not it.backends[0].health.is_up
            assert it.metric("retries_total", reason="refused") == 1
            assert it.metric("ejections_total", backend=it.backends[0].name) == 1
            assert await it.source() == "s1"
            assert it.metric("retries_total", reason="refused") == 1  # it is not asked again

    run(test())


async def _kill_once_arrived(server: FakeServer) -> None:
    await server.arrived.wait()
    await server.kill()


@pytest.mark.parametrize("begins", [False, True])
def test_what_has_not_begun_is_tried_elsewhere_when_its_backend_dies(begins: bool) -> None:
    async def test() -> None:
        async with routed(2) as it:
            dying = it.servers[0]
            if begins:  # headers were sent, but nothing of a body
                dying.streams(EVENTS, gate_after=0)
            else:
                dying.holds()
            answer, _ = await asyncio.gather(it.source(), _kill_once_arrived(dying))
            assert answer == "s1"
            assert it.metric("retries_total", reason="lost") == 1
            assert it.backends[0].num_open == it.backends[1].num_open == 0

    run(test())


def test_a_stream_that_has_begun_ends_with_an_error_event() -> None:
    async def test() -> None:
        async with routed(2) as it:
            dying = it.servers[0]
            half = b'data: {"token": 3'
            dying.streams([*EVENTS[:2], half, b"never"], gate_after=3)
            async with it.client.post(it.url + "/v1/completions", json={"prompt": "x"}) as response:
                got = await response.content.readexactly(len(b"".join(EVENTS[:2])))
                await dying.kill()
                got += await response.content.read()
            *events, error, done, end = got.split(b"\n\n")
            assert [event + b"\n\n" for event in events] == EVENTS[:2]  # and nothing by halves
            told = json.loads(error.removeprefix(b"data: "))["error"]
            assert told["code"] == 502
            assert "broken off" in told["message"]
            assert (done, end) == (b"data: [DONE]", b"")
            assert it.servers[1].seen == []
            assert it.metric("broken_answers_total", backend=it.backends[0].name) == 1

    run(test())


def test_503_is_tried_elsewhere_and_the_backend_is_left_alone_as_long_as_it_asked() -> None:
    async def test() -> None:
        async with routed(2) as it:
            it.servers[0].says(503, **{"Retry-After": "5"})
            assert [await it.source() for _ in range(4)] == ["s1"] * 4
            assert len(it.servers[0].seen) == 1
            assert it.backends[0].health.is_up
            it.clock.now += 5.1
            it.servers[0].answer = it.servers[0].whole
            assert {await it.source(), await it.source()} == {"s0", "s1"}

    run(test())


def test_when_all_say_503_the_client_gets_what_the_last_one_said() -> None:
    async def test() -> None:
        async with routed(2) as it:
            for server in it.servers:
                server.says(503, **{"Retry-After": "7"})
            response = await it.post()
            assert response.status == 503
            assert response.headers["Retry-After"] == "7"
            assert (await response.json())["error"]["message"].startswith("from s")

    run(test())


def test_an_error_as_the_first_event_of_a_stream_is_tried_elsewhere() -> None:
    async def test() -> None:
        async with routed(2) as it:
            error = {"error": {"message": "dead", "type": "x", "param": None, "code": 500}}
            event = b"data: " + json.dumps(error).encode() + b"\n\n"
            it.servers[0].streams([event, DONE])
            assert await it.source() == "s1"
            it.servers[1].streams([event, DONE])
            response = await it.post()
            assert response.status == 500
            assert await response.json() == error

    run(test())


@pytest.mark.parametrize("error", [b'"x"', b"[]", b'{"code": [503]}', b'{"code": {"a": 1}}'])
def test_a_first_event_of_no_known_form_is_passed_on(error: bytes) -> None:
    async def test() -> None:
        async with routed(1) as it:
            event = b'data: {"error": ' + error + b"}\n\n"
            it.servers[0].streams([event, DONE])
            response = await it.post()
            assert (response.status, await response.read()) == (200, event + DONE)

    run(test())


def test_a_backend_that_leaves_http_has_not_answered() -> None:
    async def test() -> None:
        async def switch(request: web.Request) -> web.StreamResponse:
            return web.Response(status=101, headers={"Upgrade": "x", "Connection": "upgrade"})

        async with routed(2) as it:
            it.servers[0].answer = switch
            assert {await it.source() for _ in range(2)} == {"s1"}

    run(test())


def test_retries_are_bounded() -> None:
    async def test() -> None:
        async with routed(5, max_retries=2) as it:
            for server in it.servers:
                server.says(500)
            response = await it.post()
            assert response.status == 500
            assert sum(len(server.seen) for server in it.servers) == 3

    run(test())


def test_a_wrong_request_is_not_tried_again() -> None:
    async def test() -> None:
        async with routed(2) as it:
            for status in (400, 401, 404, 422):
                for server in it.servers:
                    server.says(status)
                assert (await it.post()).status == status
            assert sum(len(server.seen) for server in it.servers) == 4
            assert it.front.fleet.num_up == 2

    run(test())


def test_server_errors_in_a_row_eject() -> None:
    async def test() -> None:
        async with routed(2, health=HealthSettings(max_failures=3)) as it:
            it.servers[0].says(500)
            for _ in range(8):
                assert await it.source() == "s1"
            assert not it.backends[0].health.is_up
            assert len(it.servers[0].seen) == 3

    run(test())


def test_a_client_that_leaves_takes_its_request_along() -> None:
    async def test() -> None:
        async with routed(1) as it:
            server = it.servers[0]
            server.streams(EVENTS, gate_after=1)
            async with it.client.post(it.url + "/v1/completions", json={"prompt": "x"}) as response:
                await response.content.readexactly(len(EVENTS[0]))
                response.close()
            await server.disconnected.wait()
            await it.front.wait_idle()
            assert it.backends[0].num_open == it.backends[0].num_open_tokens == 0
            assert it.metric("client_disconnects_total") == 1
            assert it.backends[0].health.is_up

    run(test())


def test_a_slow_reader_slows_its_backend_down() -> None:
    async def test() -> None:
        async with routed(1) as it:
            piece = b"data: " + b"x" * 65530 + b"\n\n"
            sent = 0

            def pieces() -> Any:
                nonlocal sent
                while sent < 4000:  # 250 MB, more than any chain of socket buffers
                    sent += 1
                    yield piece

            it.servers[0].streams(pieces())
            async with it.client.post(it.url + "/v1/completions", json={"prompt": "x"}) as response:
                await response.content.readexactly(len(piece))
                seen = -1
                while seen != sent:  # until the sender stands still
                    seen = sent
                    for _ in range(200):
                        await asyncio.sleep(0)
                assert sent < 2000
                response.close()
            await it.servers[0].disconnected.wait()

    run(test())


async def _drained(it: Routed) -> None:
    await it.servers[0].arrived.wait()
    it.front.abort("the router was shut down")


def test_an_aborted_router_ends_its_requests_with_an_error() -> None:
    async def test() -> None:
        async with routed(2, RoundRobin()) as it:
            it.servers[0].holds()
            response, _ = await asyncio.gather(it.post(), _drained(it))
            assert response.status == 503
            assert "shut down" in (await it.error(response))["message"]
            assert (await it.post()).status == 503

    run(test())


def test_an_exchange_that_is_ended_twice_ends_once() -> None:
    async def test() -> None:
        async with routed(2) as it:
            it.servers[0].holds()
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(it.post())
                await it.servers[0].arrived.wait()
                (waiting,) = it.backends[0].waiting
                waiting.abandon("first")
                await asyncio.sleep(0)  # the limit has passed, and nobody has noticed yet
                waiting.abandon("second")
            assert asked.result().status == 200

    run(test())
