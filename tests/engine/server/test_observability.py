"""Metrics, logs and traces of a server that runs."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from engine.server.observability import Observability, ObservabilitySettings
from tests.engine.server.exposition import Exposition
from tests.engine.server.listening import recorded
from tests.engine.server.serving import RunningServer, serving

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SPANS = InMemorySpanExporter()


@pytest.fixture(scope="module")
def observed() -> Iterator[RunningServer]:
    with pytest.MonkeyPatch.context() as patch:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(SPANS))
        patch.setattr("engine.server.observability.make_provider", lambda endpoint: provider)
        settings = ObservabilitySettings(
            enable_log_requests=True, otlp_traces_endpoint="http://nowhere"
        )
        observability = Observability(settings)
    with serving({"api_keys": ("key",), "max_queue": 1}, extensions=[observability]) as server:
        yield server
    observability.close()


def scrape(server: RunningServer) -> Exposition:
    status, headers, body = server.request("GET", "/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Exposition(body.decode())


def post(server: RunningServer, path: str, body: object, **headers: str) -> int:
    status, _ = server.post(path, body, {"Authorization": "Bearer key"} | headers)
    return status


def grown(before: Exposition, after: Exposition, name: str, **labels: str) -> float:
    return after.value(name, **labels) - before.value(name, **labels)


def test_metrics_need_no_key_and_count_what_was_served(observed: RunningServer) -> None:
    body = {"model": "tiny", "prompt": "a" * 40, "max_tokens": 10, "n": 2}
    assert post(observed, "/v1/completions", body) == 200
    before = scrape(observed)
    assert post(observed, "/v1/completions", body) == 200
    after = scrape(observed)
    expected = {
        "vllm:prompt_tokens_total": 40,
        "vllm:generation_tokens_total": 20,
        "vllm:time_to_first_token_seconds_count": 1,
        "vllm:inter_token_latency_seconds_count": 18,
        "vllm:e2e_request_latency_seconds_count": 1,
        "vllm:request_params_n_sum": 2,
        "vllm:request_max_num_generation_tokens_sum": 10,
    }
    assert {name: grown(before, after, name) for name in expected} == expected
    assert grown(before, after, "vllm:prefix_cache_hits_total") > 0
    assert grown(before, after, "vllm:request_success_total", finished_reason="length") == 2
    handler = {"handler": "/v1/completions", "method": "POST"}
    assert grown(before, after, "http_requests_total", status="2xx", **handler) == 1
    assert after.value("vllm:num_requests_running") == 0
    assert after.value("vllm:kv_cache_usage_perc") == 0


def test_who_is_turned_away_is_counted_too(observed: RunningServer) -> None:
    assert observed.post("/v1/completions", {"prompt": "a"})[0] == 401
    handler = {"handler": "/v1/completions", "method": "POST"}
    assert scrape(observed).value("http_requests_total", status="4xx", **handler) == 1
    assert observed.state.num_rejected == 0
    observed.state.num_rejected += 1
    name = "vllm:admission_rejections_total"
    assert scrape(observed).value(name, reason="max_num_queued_reqs") == 1


def test_a_call_of_a_tool_is_counted_as_parsed(observed: RunningServer) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    body = {
        "messages": [{"role": "user", "content": "say «{}»"}],
        "tools": [tool],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "max_tokens": 20,
    }
    assert post(observed, "/v1/chat/completions", body) == 200
    told = scrape(observed)
    counted = {"mode": "non_streaming", "outcome": "tool_call"}
    assert told.value("vllm:tool_call_parser_invocations_total", **counted) == 1


def test_a_request_has_one_name_in_logs_answers_and_traces(
    observed: RunningServer,
) -> None:
    SPANS.clear()
    with recorded("engine.server.request_log") as records:
        names = {"X-Request-Id": "mine", "traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
        headers = {"Authorization": "Bearer key"} | names
        body = {"prompt": "abc", "max_tokens": 4}
        status, told, _ = observed.request("POST", "/v1/completions", body, headers)
    assert (status, told["x-request-id"]) == (200, "mine")
    came, ended = [vars(each)["workbench_fields"] for each in records]
    assert ended["request_id"] == "mine"
    assert ended["engine_request_id"] == came["engine_request_id"]
    (span,) = SPANS.get_finished_spans()
    assert span.parent is not None
    assert format(span.parent.span_id, "016x") == SPAN_ID
    assert (span.attributes or {})["gen_ai.request.id"] == came["engine_request_id"]
