"""The router as its users and its operator meet it: state, draining, models, errors."""

import asyncio
import gzip
import json
from collections.abc import Coroutine
from typing import Any

import pytest

from engine.router.admin import OWN_PATHS
from tests.engine.router.fakes import FakeServer, routed
from workbench.router import Router

ALICE = {"Authorization": "Bearer sk-a"}
ADMIN = {"Authorization": "Bearer sk-admin"}


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_an_operator_drains_a_backend() -> None:
    async def test() -> None:
        async with routed(2, admin_key="sk-admin") as it:
            drain = f"{it.url}/drain?backend={it.servers[0].url}"
            assert (await it.client.post(drain)).status == 401
            assert (await it.client.post(drain, headers=ALICE)).status == 401
            assert (await it.client.get(it.url + "/backends")).status == 401
            state = await (await it.client.post(drain, headers=ADMIN)).json()
            assert state["state"] == "draining"
            assert [await it.source() for _ in range(3)] == ["s1"] * 3
            undrain = f"{it.url}/undrain?backend={it.backends[0].name}"
            assert (await it.client.post(undrain, headers=ADMIN)).status == 200
            assert {await it.source() for _ in range(2)} == {"s0", "s1"}
            unknown = await it.client.post(it.url + "/drain?backend=x", headers=ADMIN)
            assert unknown.status == 404
            shown = await (await it.client.get(it.url + "/backends", headers=ADMIN)).json()
            assert [b["state"] for b in shown["backends"]] == ["up", "up"]

    run(test())


def test_without_an_admin_key_nobody_drains() -> None:
    async def test() -> None:
        async with routed(1) as it:
            response = await it.client.post(f"{it.url}/drain?backend={it.servers[0].url}")
            assert response.status == 403
            assert "--admin-key" in (await it.error(response))["message"]
            assert (await it.client.get(it.url + "/backends")).status == 200

    run(test())


def test_a_draining_router_refuses_and_finishes() -> None:
    async def test() -> None:
        async with routed(1) as it:
            it.servers[0].holds()
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(it.post())
                await it.servers[0].arrived.wait()
                it.front.drain()
                refused = await it.post()
                assert refused.status == 503
                assert refused.headers["Connection"] == "close"
                assert (await it.client.get(it.url + "/ready")).status == 503
                # who asks how the router is wants no work
                assert it.metric("refused_total", status="503") == 1
                it.servers[0].gate.set()
            assert asked.result().status == 200
            await it.front.wait_idle()

    run(test())


def test_models_are_merged_and_requests_go_where_their_model_is() -> None:
    async def test() -> None:
        def prepare(servers: list[FakeServer]) -> None:
            servers[0].models = ["a", "both"]
            servers[1].models = ["b", "both"]

        async with routed(2, prepare=prepare) as it:
            listed = await (await it.client.get(it.url + "/v1/models")).json()
            owners = {model["id"]: model["owned_by"] for model in listed["data"]}
            assert owners == {"a": "s0", "both": "s0", "b": "s1"}
            assert [await it.source(model="b") for _ in range(3)] == ["s1"] * 3
            assert {await it.source(model="both") for _ in range(2)} == {"s0", "s1"}
            asked = [await it.client.get(it.url + "/v1/models/b") for _ in range(3)]
            assert [(await answer.json())["from"] for answer in asked] == ["s1"] * 3
            assert await it.source(model="unknown") in ("s0", "s1")  # it knows what to say
            await it.servers[1].kill()
            await it.check()
            response = await it.post(model="b", prompt="x")
            assert response.status == 503
            assert "'b'" in (await it.error(response))["message"]

    run(test())


def test_what_the_router_does_not_know_is_told_in_openais_form() -> None:
    async def test() -> None:
        async with routed(1, max_body_bytes=1000) as it:
            unknown = await it.client.get(it.url + "/nothing")
            assert unknown.status == 404
            await it.error(unknown)
            wrong = await it.client.post(it.url + "/health")
            assert wrong.status == 405
            await it.error(wrong)
            large = await it.post(prompt="x" * 2000)
            assert large.status == 413
            assert "1000 bytes" in (await it.error(large))["message"]
            assert it.servers[0].seen == []

    run(test())


def test_a_policy_that_fails_fails_its_own_request_only() -> None:
    class Broken(Router):
        def choose(self, request: Any, replicas: Any, now: float) -> int:
            if request.session_id == "bad":
                raise ValueError("no idea")
            return 0

    async def test() -> None:
        async with routed(1, Broken()) as it:
            response = await it.post(user="bad")
            assert response.status == 500
            assert "no idea" not in (await it.error(response))["message"]
            assert await it.source() == "s0"
            assert it.backends[0].num_open == 0

    run(test())


def test_metrics_and_load() -> None:
    async def test() -> None:
        async with routed(1) as it:
            it.servers[0].load = {"num_running": 3, "num_waiting": 1, "kv_cache_usage": 0.5}
            await it.post()
            await it.check()
            text = await (await it.client.get(it.url + "/metrics")).text()
            name = it.backends[0].name
            assert f'workbench_router_requests_total{{backend="{name}",status="200"}} 1.0' in text
            assert f'workbench_router_backend_up{{backend="{name}"}} 1.0' in text
            assert "workbench_router_queue_length 0.0" in text
            assert "workbench_router_time_to_first_byte_seconds_bucket" in text
            load = await (await it.client.get(it.url + "/load")).json()
            assert (load["num_running"], load["num_waiting"], load["world"]) == (3, 1, "router")

    run(test())


def test_a_path_that_leaves_the_api_reaches_no_backend() -> None:
    async def test() -> None:
        async with routed(1, backend_api_key="sk-inner") as it:
            for path in ("/v1/../metrics", "/v1/%2e%2e/drain", "/v1/x/../../load", "/v1/./models"):
                status, body = await _raw(it.url, f"POST {path} HTTP/1.1")
                assert status == 400, path
                assert b"BadRequestError" in body
            assert it.servers[0].seen == []
            assert (await it.client.get(it.url + "/v1/files/a..b")).status == 200

    run(test())


def test_a_request_line_with_a_whole_url_is_no_failure_of_the_backend() -> None:
    async def test() -> None:
        async with routed(1) as it:
            status, _ = await _raw(it.url, "POST http://other.example/v1/completions?a=b HTTP/1.1")
            assert status == 200
            assert it.servers[0].seen[-1].path == "/v1/completions?a=b"
            assert it.backends[0].health.is_up

    run(test())


def test_a_body_that_cannot_be_decoded_is_the_clients_mistake() -> None:
    async def test() -> None:
        async with routed(1) as it:
            response = await it.client.post(
                it.url + "/v1/completions", data=b"xx", headers={"Content-Encoding": "gzip"}
            )
            assert response.status == 400
            assert "gzip" in (await it.error(response))["message"]

    run(test())


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (10_000_000, 413)])
def test_a_body_is_measured_as_it_is_unpacked(size: int, status: int) -> None:
    async def test() -> None:
        async with routed(1, max_body_bytes=100_000) as it:
            text = "a" * size
            packed = gzip.compress(json.dumps({"prompt": text}).encode())
            assert len(packed) < 100_000
            response = await it.client.post(
                it.url + "/v1/completions", data=packed, headers={"Content-Encoding": "gzip"}
            )
            assert response.status == status
            seen = [(each.body["prompt"], each.headers.get("Content-Encoding"))
                    for each in it.servers[0].seen]  # fmt: skip
            assert seen == ([(text, None)] if status == 200 else [])

    run(test())


async def _raw(url: str, request_line: str) -> tuple[int, bytes]:
    """Status and rest of the answer to a request that no client library would send."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{request_line}\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer


def test_only_what_is_not_its_own_counts_as_refused_work() -> None:
    async def test() -> None:
        async with routed(1) as it:
            own = {r.resource.canonical for r in it.front.app().router.routes() if r.resource}
            assert own - OWN_PATHS == {"/v1/models", "/v1/{path}", "/tokenize", "/detokenize"}

    run(test())
