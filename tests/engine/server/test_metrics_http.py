"""/metrics of an app, and what it says of the app's own requests."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from engine.server.metrics import install
from engine.server.metrics.http_metrics import HTTPMetrics, HTTPMetricsMiddleware
from engine.server.settings import ServerSettings
from tests.engine.server.exposition import Exposition
from tests.engine.server.listening import SilentLLM, make_state

BODY = b"x" * 7


def make_client(name: str = "tiny") -> TestClient:
    app = FastAPI()

    @app.post("/v1/answers/{key}")
    def answer(key: str) -> Response:
        return Response(BODY, 503 if key == "busy" else 200)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("broken")

    app.state.server = make_state()
    llm: Any = SilentLLM()
    install(app, llm, ServerSettings(served_model_names=(name,)))
    return TestClient(app, raise_server_exceptions=False)


def scrape(client: TestClient) -> Exposition:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    return Exposition(response.text)


def test_requests_count_under_the_template_of_their_route() -> None:
    with make_client() as client:
        for key in ("a", "b%0a", "busy"):
            client.post(f"/v1/answers/{key}", content=b"12345")
        text = scrape(client)
    handler = {"handler": "/v1/answers/{key}", "method": "POST"}
    assert text.value("http_requests_total", status="2xx", **handler) == 2
    assert text.value("http_requests_total", status="5xx", **handler) == 1
    assert text.value("http_request_size_bytes_sum", handler=handler["handler"]) == 15
    assert text.value("http_response_size_bytes_sum", handler=handler["handler"]) == 21
    assert text.value("http_request_duration_seconds_count", **handler) == 3
    assert text.value("http_request_duration_highr_seconds_count") == 3


def test_what_clients_write_becomes_no_label() -> None:
    with make_client() as client:
        client.get("/etc/passwd")
        client.get("/v1/answers/a/b?c=d")
        client.put("/v1/answers/a")
        client.request("FOO", "/v1/answers/a")
        client.get("/broken")
        text = scrape(client)
    counted = {
        (s.labels["handler"], s.labels["method"], s.labels["status"])
        for s in text.samples
        if s.name == "http_requests_total"
    }
    template = "/v1/answers/{key}"
    assert counted == {
        ("none", "GET", "4xx"),
        (template, "PUT", "4xx"),
        (template, "other", "4xx"),
        ("/broken", "GET", "5xx"),
    }


@pytest.mark.parametrize("error", [None, ClientDisconnect()])
def test_a_client_that_leaves_before_its_answer_is_no_error_of_the_server(
    error: Exception | None,
) -> None:
    metrics = HTTPMetrics()

    async def leave(scope: Scope, receive: Receive, send: Send) -> None:
        if error is not None:
            raise error

    async def silent(*_: Any) -> Any:
        raise AssertionError("nothing is asked or said")

    scope = {"type": "http", "path": "/v1/completions", "method": "POST", "headers": []}
    with suppress(ClientDisconnect):
        asyncio.run(HTTPMetricsMiddleware(leave, metrics, [])(scope, silent, silent))
    (requests,) = (m for m in metrics.collect() if m.name == "http_requests")
    counted = {s.labels["status"]: s.value for s in requests.samples if s.name.endswith("_total")}
    assert counted == {"4xx": 1}


@pytest.mark.parametrize("path", ["/metrics", "/health", "/ready", "/load", "/version"])
def test_what_machines_ask_all_the_time_is_not_counted(path: str) -> None:
    with make_client() as client:
        client.get(path)
        assert "http_requests_total{" not in scrape(client).text


def test_two_apps_of_a_process_have_metrics_of_their_own() -> None:
    with make_client("one") as first, make_client("two") as second:
        first.post("/v1/answers/a")
        assert "http_requests_total{" not in scrape(second).text
        assert scrape(first).value("vllm:num_requests_running", model_name="one") == 0
        assert scrape(second).value("vllm:num_requests_running", model_name="two") == 0


def test_single_names_can_be_asked_for_and_the_format_is_one() -> None:
    with make_client() as client:
        response = client.get("/metrics?name[]=vllm:num_requests_running")
        assert [s.value for s in Exposition(response.text).samples] == [0]
        whatever = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
        assert whatever.headers["content-type"].startswith("text/plain; version=0.0.4")
