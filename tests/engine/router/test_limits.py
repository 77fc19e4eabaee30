"""Who is let in and who waits: keys, rates, the queue."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from engine.router.api_keys import ApiKey
from engine.router.settings import QueueSettings
from tests.engine.router.fakes import Routed, routed

ALICE = {"Authorization": "Bearer sk-a"}


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


async def _until_waiting(it: Routed, number: int) -> None:
    """Until so many requests wait in the queue; `routed` bounds it."""
    while it.front.dispatcher.num_waiting != number:
        await asyncio.sleep(0)


def test_a_key_is_asked_for_and_not_passed_on() -> None:
    async def test() -> None:
        async with routed(1, keys=[ApiKey(name="alice", key="sk-a")]) as it:
            for headers in ({}, {"Authorization": "Bearer sk-b"}):
                response = await it.client.get(it.url + "/v1/models", headers=headers)
                assert response.status == 401
                assert (await it.error(response))["type"] == "AuthenticationError"
            assert it.servers[0].seen == []
            response = await it.client.post(it.url + "/v1/completions", headers=ALICE)
            assert response.status == 200
            assert "Authorization" not in it.servers[0].seen[0].headers

    run(test())


def test_backends_get_the_routers_own_key() -> None:
    async def test() -> None:
        async with routed(1, backend_api_key="sk-inner") as it:
            await it.client.post(it.url + "/v1/completions", headers=ALICE)
            assert it.servers[0].seen[0].headers["Authorization"] == "Bearer sk-inner"

    run(test())


def test_a_client_over_its_rate_gets_429_and_others_go_on() -> None:
    async def test() -> None:
        keys = [
            ApiKey(name="alice", key="sk-a", requests_per_second=0.5),
            ApiKey(name="bob", key="sk-b"),
        ]
        async with routed(1, keys=keys) as it:
            url = it.url + "/v1/completions"
            statuses = [(await it.client.post(url, headers=ALICE)).status for _ in range(2)]
            assert statuses == [200, 429]
            limited = await it.client.post(url, headers=ALICE)
            assert limited.headers["Retry-After"] == "2"
            error = await it.error(limited)
            assert (error["type"], error["code"]) == ("RateLimitError", "rate_limit_requests")
            bob = {"Authorization": "Bearer sk-b"}
            assert (await it.client.post(url, headers=bob)).status == 200
            it.clock.now += 2.1
            assert (await it.client.post(url, headers=ALICE)).status == 200
            assert it.metric("rate_limited_total", key="alice") == 2

    run(test())


def test_tokens_are_charged_as_the_answer_says() -> None:
    async def test() -> None:
        async with routed(1, keys=[ApiKey(name="a", key="sk-a", tokens_per_minute=100)]) as it:
            url, body = it.url + "/v1/completions", {"prompt": [1, 2], "max_tokens": 90}
            # each asks for 92 and uses 5, as the fake server says
            statuses = [
                (await it.client.post(url, json=body, headers=ALICE)).status for _ in range(3)
            ]
            assert statuses == [200, 200, 429]
            it.servers[0].says(400)
            it.clock.now += 60
            for _ in range(5):  # what was not served costs nothing
                response = await it.client.post(url, json=body, headers=ALICE)
                assert response.status == 400

    run(test())


def test_clients_take_turns_in_the_queue() -> None:
    async def test() -> None:
        keys = [ApiKey(name=name, key=f"sk-{name}") for name in "ab"]
        async with routed(1, keys=keys, queue=QueueSettings(max_concurrency=1)) as it:
            server = it.servers[0]
            server.holds()

            async def ask(name: str, number: int) -> None:
                headers = {"Authorization": f"Bearer sk-{name}"}
                body = {"prompt": f"{name}{number}"}
                await it.client.post(it.url + "/v1/completions", json=body, headers=headers)

            async with asyncio.TaskGroup() as group:
                for number in range(4):
                    group.create_task(ask("a", number))
                    await _until_waiting(it, number)
                group.create_task(ask("b", 0))
                await _until_waiting(it, 4)
                server.gate.set()
            assert [seen.body["prompt"] for seen in server.seen] == ["a0", "a1", "b0", "a2", "a3"]

    run(test())


def test_a_full_queue_says_503() -> None:
    async def test() -> None:
        queue = QueueSettings(max_concurrency=1, max_queue=1)
        async with routed(1, queue=queue) as it:
            it.servers[0].holds()
            async with asyncio.TaskGroup() as group:
                group.create_task(it.post())
                await it.servers[0].arrived.wait()
                group.create_task(it.post())
                await _until_waiting(it, 1)
                response = await it.post()
                assert response.status == 503
                assert int(response.headers["Retry-After"]) >= 1
                assert "max_queue=1" in (await it.error(response))["message"]
                it.servers[0].gate.set()
            assert len(it.servers[0].seen) == 2

    run(test())


def test_a_wait_is_bounded_and_leaves_nothing_behind() -> None:
    async def test() -> None:
        queue = QueueSettings(max_concurrency=1, queue_timeout_s=0.02)
        async with routed(1, queue=queue) as it:
            it.servers[0].holds()
            async with asyncio.TaskGroup() as group:
                group.create_task(it.post())
                await it.servers[0].arrived.wait()
                response = await it.post()
                assert response.status == 503
                assert "within 0.02 s" in (await it.error(response))["message"]
                assert it.front.dispatcher.num_waiting == 0
                it.servers[0].gate.set()

    run(test())


def test_who_leaves_the_queue_is_not_served() -> None:
    async def test() -> None:
        async with routed(1, queue=QueueSettings(max_concurrency=1)) as it:
            it.servers[0].holds()
            async with asyncio.TaskGroup() as group:
                group.create_task(it.post())
                await it.servers[0].arrived.wait()
                gone = asyncio.ensure_future(it.post())
                await _until_waiting(it, 1)
                gone.cancel()
                await _until_waiting(it, 0)
                it.servers[0].gate.set()
            assert await it.source() == "s0"
            assert len(it.servers[0].seen) == 2

    run(test())


def test_those_who_wait_are_told_when_the_last_backend_goes_down() -> None:
    async def test() -> None:
        async with routed(1, queue=QueueSettings(max_concurrency=1)) as it:
            it.servers[0].holds()
            async with asyncio.TaskGroup() as group:
                first = group.create_task(it.post())
                await it.servers[0].arrived.wait()
                second = group.create_task(it.post())
                await _until_waiting(it, 1)
                await it.servers[0].kill()
            for response in (first.result(), second.result()):
                assert response.status == 503
                assert "0 of 1 are up" in (await it.error(response))["message"]

    run(test())
