"""Spans of requests: their times, attributes and parents; and that nobody pays who has none."""

import asyncio
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from engine.server.request_context import RequestContext, enter_context
from engine.server.tracing import PROTOCOL_VARIABLE, RequestTracer, make_provider
from tests.engine.server.listening import record
from workbench.errors import ConfigError
from workbench.sampling_params import SamplingParams

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> RequestTracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return RequestTracer(provider, "tiny")


def test_a_request_is_a_span_with_its_times_and_tokens(
    tracer: RequestTracer, exporter: InMemorySpanExporter
) -> None:
    tracer.on_arrival("a", 30, SamplingParams())
    tracer.on_finished(record())
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind, span.parent) == ("llm_request", SpanKind.SERVER, None)
    assert span.start_time is not None
    assert span.end_time is not None
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(3.5)
    assert dict(span.attributes or {}) == {
        "gen_ai.request.id": "a",
        "gen_ai.response.model": "tiny",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.request.n": 1,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.max_tokens": 8,
        "gen_ai.usage.num_sequences": 1,
        "gen_ai.usage.prompt_tokens": 30,
        "gen_ai.usage.completion_tokens": 5,
        "gen_ai.latency.e2e": 3.5,
        "gen_ai.latency.time_in_queue": 0.5,
        "gen_ai.latency.time_to_first_token": 1.0,
        "gen_ai.latency.time_in_model_prefill": 0.5,
        "gen_ai.latency.time_in_model_decode": 2.0,
        "gen_ai.latency.time_in_model_inference": 2.5,
    }


def test_a_span_continues_the_trace_of_its_request(
    tracer: RequestTracer, exporter: InMemorySpanExporter
) -> None:
    async def arrive() -> None:
        enter_context(RequestContext("x", {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}))
        tracer.on_arrival("a", 30, SamplingParams())

    asyncio.run(arrive())
    tracer.on_finished(record())
    (span,) = exporter.get_finished_spans()
    assert span.parent is not None
    assert format(span.parent.span_id, "016x") == SPAN_ID
    assert format(span.get_span_context().trace_id, "032x") == TRACE_ID


def test_a_traceparent_that_is_none_starts_a_trace(
    tracer: RequestTracer, exporter: InMemorySpanExporter
) -> None:
    async def arrive() -> None:
        enter_context(RequestContext("x", {"traceparent": "nonsense"}))
        tracer.on_arrival("a", 30, SamplingParams())

    asyncio.run(arrive())
    tracer.on_finished(record())
    assert exporter.get_finished_spans()[0].parent is None


def test_a_request_that_failed_is_an_error_without_the_times_it_lacks(
    tracer: RequestTracer, exporter: InMemorySpanExporter
) -> None:
    never_ran = {"scheduled_time": None, "first_token_time": None, "last_token_time": None}
    tracer.on_finished(record(finish_reasons=("error",), **never_ran))
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert "gen_ai.latency.time_in_queue" not in (span.attributes or {})


def test_an_endpoint_makes_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROTOCOL_VARIABLE, raising=False)
    provider = make_provider("http://127.0.0.1:1/v1/traces")
    assert provider.resource.attributes["service.name"] == "workbench"
    provider.shutdown()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROTOCOL_VARIABLE, "carrier pigeon")
    with pytest.raises(ConfigError, match="carrier pigeon must be one of http/protobuf, grpc"):
        make_provider("http://127.0.0.1:1")
    monkeypatch.delenv(PROTOCOL_VARIABLE)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match="pip install"):
        make_provider("http://127.0.0.1:1")


def test_who_wants_no_traces_and_no_grpc_imports_neither() -> None:
    code = (
        "import sys, engine.server.observability, engine.server.grpc\n"
        "costly = {'opentelemetry.sdk', 'grpc', 'torch', 'transformers'}\n"
        "print(sorted(costly & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
