"""Puts the metrics of one server together and serves them at /metrics.

Every app has a registry of its own. Knows who is fed by whom; knows no single metric.
"""

from collections.abc import Iterable

from fastapi import FastAPI, Request, Response
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from engine.async_llm import AsyncLLM
from engine.core_messages import CoreInfo
from engine.server.metrics.engine_metrics import EngineMetrics
from engine.server.metrics.frontend_metrics import FrontendMetrics
from engine.server.metrics.http_metrics import HTTPMetrics, HTTPMetricsMiddleware
from engine.server.settings import ServerSettings
from engine.server.state import ServerState

PATH = "/metrics"
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The only one: OpenMetrics' would rename vllm:… to vllm_…, which no dashboard asks for."""


class ServerMetrics(Collector):
    """All metrics of one server.

    Args:
        info: What the engine is.
        model_name: Value of the label model_name.
        state: What the endpoints count in.

    Attributes:
        engine: Fed by listening to the engine.
        frontend: Read from the state.
        http: Fed by a middleware.
    """

    def __init__(self, info: CoreInfo, model_name: str, state: ServerState) -> None:
        self.engine = EngineMetrics(info, model_name)
        self.frontend = FrontendMetrics(model_name, state)
        self.http = HTTPMetrics()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def describe(self) -> Iterable[Metric]:
        """The names of our own metrics; called by the registry."""
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        """Our own metrics; called by the registry."""
        yield from self.engine.collect()
        yield from self.frontend.collect()
        yield from self.http.collect()

    def render(self, names: Iterable[str] = ()) -> bytes:
        """The text that Prometheus reads.

        Args:
            names: Only these samples; empty: all.
        """
        wanted = list(names)
        source = self._registry.restricted_registry(wanted) if wanted else self._registry
        return generate_latest(source)


def install(app: FastAPI, llm: AsyncLLM, settings: ServerSettings) -> None:
    """Add /metrics to an app whose `app.state.server` is its ServerState."""
    metrics = ServerMetrics(llm.info, settings.model_name, app.state.server)
    llm.add_listener(metrics.engine)
    app.add_middleware(HTTPMetricsMiddleware, metrics=metrics.http, routes=app.router.routes)

    told = {"description": "Prometheus' text format", "content": {"text/plain": {}}}

    @app.get(
        PATH,
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: told},
    )
    async def show_metrics(request: Request) -> Response:
        names = request.query_params.getlist("name[]")
        return Response(metrics.render(names), headers={"Content-Type": MEDIA_TYPE})
