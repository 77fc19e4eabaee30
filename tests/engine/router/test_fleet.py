"""Which backends get requests: health, reports, prefixes, sessions."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from engine.router.settings import HealthSettings
from tests.engine.router.fakes import Routed, routed
from workbench.router import LeastOutstanding, LongestPrefix, SessionAffinity


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_health_and_return() -> None:
    async def test() -> None:
        health = HealthSettings(healthy_after=2, unhealthy_after=2, ejection_s=1.0)
        async with routed(2, health=health) as it:
            assert (await it.client.get(it.url + "/health")).status == 200
            for server in it.servers:
                server.health = 503
            await it.check()
            assert (await it.client.get(it.url + "/health")).status == 200
            await it.check()
            assert (await it.client.get(it.url + "/health")).status == 503
            assert (await it.client.get(it.url + "/ready")).status == 503
            response = await it.post()
            assert (response.status, response.headers["Retry-After"]) == (503, "2")
            for server in it.servers:
                server.health = 200
            it.clock.now += 1.0
            await it.check(2)
            assert (await it.client.get(it.url + "/ready")).status == 200
            assert await it.source() in ("s0", "s1")
            assert it.metric("returns_total", backend=it.backends[0].name) == 2  # first one: start

    run(test())


def test_a_killed_backend_comes_back_on_its_old_address() -> None:
    async def test() -> None:
        async with routed(2, health=HealthSettings(healthy_after=1, ejection_s=0)) as it:
            await it.servers[0].kill()
            await it.check()
            assert [await it.source() for _ in range(2)] == ["s1", "s1"]
            await it.servers[0].start()
            await it.check()
            assert {await it.source() for _ in range(2)} == {"s0", "s1"}

    run(test())


def test_the_checks_run_by_themselves() -> None:
    async def test() -> None:
        health = HealthSettings(interval_s=0.01, healthy_after=1, ejection_s=0)
        async with routed(1, health=health) as it:
            watching = asyncio.ensure_future(it.front.monitor.run())
            await it.servers[0].kill()
            while it.backends[0].health.is_up:
                await asyncio.sleep(0)
            await it.servers[0].start()
            while not it.backends[0].health.is_up:
                await asyncio.sleep(0)
            watching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await watching

    run(test())


def test_a_hung_backend_loses_what_it_has_not_begun() -> None:
    async def test() -> None:
        async with routed(2, health=HealthSettings(unhealthy_after=1)) as it:
            it.servers[0].holds()
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(it.source())
                await it.servers[0].arrived.wait()
                it.servers[0].health = 500
                await it.check()
            assert asked.result() == "s1"
            await it.servers[0].disconnected.wait()
            assert it.metric("retries_total", reason="abandoned") == 1

    run(test())


def test_a_backend_that_says_it_drains_gets_nothing_new() -> None:
    async def test() -> None:
        async with routed(2) as it:
            it.servers[0].load = {"num_running": 0, "is_draining": True}
            await it.check()
            assert [await it.source() for _ in range(3)] == ["s1"] * 3
            assert (await it.client.get(it.url + "/health")).status == 200
            it.servers[0].load = {"num_running": 0, "is_draining": False}
            await it.check()
            assert {await it.source() for _ in range(2)} == {"s0", "s1"}

    run(test())


def test_load_from_elsewhere_is_heeded() -> None:
    async def test() -> None:
        async with routed(2, LeastOutstanding()) as it:
            it.servers[0].load = {"num_running": 9, "num_waiting": 0}
            it.servers[1].metrics = "vllm:num_requests_running 4\n"
            await it.check()
            assert [await it.source() for _ in range(4)] == ["s1"] * 4
            it.servers[1].metrics = "vllm:num_requests_running 14\n"
            await it.check()
            assert [await it.source() for _ in range(4)] == ["s0"] * 4

    run(test())


@pytest.mark.parametrize("kind", ["text", "tokens", "chat"])
def test_the_same_prefix_goes_to_the_same_backend(kind: str) -> None:
    def ask(it: Routed, prompt: int, question: int) -> Coroutine[Any, Any, str]:
        shared = f"document {prompt} " * 60
        if kind == "tokens":
            return it.source(prompt=[*[prompt] * 160, *[question] * 16])
        if kind == "text":
            return it.source(prompt=shared + str(question))
        chat = [{"role": "system", "content": shared}, {"role": "user", "content": str(question)}]
        return it.source(path="/v1/chat/completions", messages=chat)

    async def test() -> None:
        async with routed(3, LongestPrefix(cache_threshold=0.5)) as it:
            homes = {prompt: await ask(it, prompt, 0) for prompt in range(6)}
            assert set(homes.values()) == {"s0", "s1", "s2"}
            for question in range(1, 4):
                for prompt in (3, 0, 5, 1, 4, 2):
                    assert await ask(it, prompt, question) == homes[prompt]

    run(test())


def test_a_session_stays_and_only_those_of_a_lost_backend_move() -> None:
    async def homes(it: Routed) -> dict[str, str]:
        return {f"u{i}": await it.source(user=f"u{i}") for i in range(30)}

    async def test() -> None:
        health = HealthSettings(healthy_after=1, ejection_s=0)
        async with routed(3, SessionAffinity(), health=health) as it:
            before = await homes(it)
            assert await homes(it) == before
            await it.servers[0].kill()  # the first in the list: the places of all others change
            await it.check()
            during = await homes(it)
            assert all(during[user] == home for user, home in before.items() if home != "s0")
            assert "s0" in before.values()
            await it.servers[0].start()
            await it.check()
            assert await homes(it) == before

    run(test())
