"""GET /metrics: what Prometheus is told, under the names that dashboards made for vLLM ask for."""

from engine.server.metrics.install import ServerMetrics, install

__all__ = ["ServerMetrics", "install"]
