"""OpenTelemetry traces: one span a request, with the attributes that vLLM's spans have.

A span is made when its request has ended, from the times that the engine told; it continues the
trace that came in the request's traceparent header. OpenTelemetry is imported here only, and only
when traces are asked for.
"""

import os
import time
from threading import Thread
from typing import Any

from engine.request_listener import RequestListener, RequestRecord
from engine.server.request_context import current_context
from workbench.errors import ConfigError
from workbench.sampling_params import SamplingParams

SPAN_NAME = "llm_request"
SERVICE_NAME = "workbench"
PROTOCOL_VARIABLE = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
EXPORTERS = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
}
NANO = 1_000_000_000
FLUSH_S = 3.0
"""Most seconds that the last spans may take at the end."""


class RequestTracer(RequestListener):
    """Makes the spans.

    Args:
        provider: A TracerProvider of OpenTelemetry's SDK.
        model_name: The model that answers.
    """

    def __init__(self, provider: Any, model_name: str) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("workbench.llm_engine")
        self._propagator = TraceContextTextMapPropagator()
        self._kind = SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)
        self._model_name = model_name
        self._parents: dict[str, Any] = {}

    def on_arrival(self, request_id: str, num_prompt_tokens: int, params: SamplingParams) -> None:
        """Remember the trace that the request belongs to."""
        context = current_context()
        if context is not None and context.trace_headers:
            self._parents[request_id] = self._propagator.extract(context.trace_headers)

    def on_finished(self, record: RequestRecord) -> None:
        """Make its span."""
        to_epoch_ns = time.time_ns() - int(time.perf_counter() * NANO)
        span = self._tracer.start_span(
            SPAN_NAME,
            context=self._parents.pop(record.request_id, None),
            kind=self._kind,
            start_time=int(record.arrival_time * NANO) + to_epoch_ns,
            attributes=span_attributes(record, self._model_name),
        )
        if "error" in record.finish_reasons:
            span.set_status(self._failed)
        span.end(end_time=int(record.finish_time * NANO) + to_epoch_ns)

    def close(self) -> None:
        """Send what has not been sent, as far as the collector takes it soon."""
        # an exporter tries a dead collector again and again, for longer than an exit may take
        flush = Thread(target=self._provider.shutdown, daemon=True)
        flush.start()
        flush.join(FLUSH_S)


def span_attributes(record: RequestRecord, model_name: str) -> dict[str, Any]:
    """The facts of a request under their names in a span; seconds, tokens."""
    params = record.params
    arrival, scheduled = record.arrival_time, record.scheduled_time
    first, last = record.first_token_time, record.last_token_time
    attributes = {
        "gen_ai.request.id": record.request_id,
        "gen_ai.response.model": model_name,
        "gen_ai.response.finish_reasons": record.finish_reasons,
        "gen_ai.request.n": params.n,
        "gen_ai.request.temperature": float(params.temperature),
        "gen_ai.request.top_p": float(params.top_p),
        "gen_ai.request.max_tokens": params.max_tokens,
        "gen_ai.usage.num_sequences": params.n,
        "gen_ai.usage.prompt_tokens": record.num_prompt_tokens,
        "gen_ai.usage.completion_tokens": record.num_output_tokens,
        "gen_ai.latency.e2e": record.finish_time - arrival,
        "gen_ai.latency.time_in_queue": _gap(arrival, scheduled),
        "gen_ai.latency.time_to_first_token": _gap(arrival, first),
        "gen_ai.latency.time_in_model_prefill": _gap(scheduled, first),
        "gen_ai.latency.time_in_model_decode": _gap(first, last),
        "gen_ai.latency.time_in_model_inference": _gap(scheduled, last),
    }
    return {name: value for name, value in attributes.items() if value is not None}


def make_provider(endpoint: str) -> Any:
    """A TracerProvider that sends spans to a collector, in the background.

    Args:
        endpoint: URL of the collector's traces, for OTLP over HTTP as in
            http://localhost:4318/v1/traces. The variable OTEL_EXPORTER_OTLP_TRACES_PROTOCOL chooses
            "http/protobuf" (default) or "grpc".

    Raises:
        ConfigError: No such protocol, or its packages are missing.
    """
    protocol = os.environ.get(PROTOCOL_VARIABLE, "http/protobuf")
    if protocol not in EXPORTERS:
        raise ConfigError(f"{PROTOCOL_VARIABLE}={protocol} must be one of {', '.join(EXPORTERS)}")
    try:
        from importlib import import_module

        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = import_module(EXPORTERS[protocol]).OTLPSpanExporter(endpoint=endpoint)
    except ImportError as error:
        package = EXPORTERS[protocol].partition(".trace_exporter")[0].replace(".", "-")
        raise ConfigError(
            f"otlp_traces_endpoint needs OpenTelemetry ({error}): pip install opentelemetry-sdk "
            f"{package.replace('_', '-')}, or leave the endpoint out"
        ) from error
    name = os.environ.get("OTEL_SERVICE_NAME", SERVICE_NAME)
    resource = Resource.create({"service.name": name})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _gap(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start
