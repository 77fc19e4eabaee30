"""What the router counts of itself, for Prometheus. Names begin with `workbench_router_`."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from engine.router.backend import Backend

PREFIX = "workbench_router_"
SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
    300.0,
)  # fmt: skip


class RouterMetrics:
    """Counters and histograms of one router, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(PREFIX + name, text, labels, registry=registry, buckets=SECONDS)

        self.requests = counter("requests", "Answers, by who gave them.", "backend", "status")
        self.retries = counter("retries", "Requests tried on another backend.", "reason")
        self.broken = counter("broken_answers", "Answers broken off by a backend.", "backend")
        self.disconnects = counter("client_disconnects", "Requests whose client went away.")
        self.refused = counter("refused", "Requests for work, refused by the router.", "status")
        self.limited = counter("rate_limited", "Requests over a key's limits.", "key")
        self.ejections = counter("ejections", "Backends taken out.", "backend")
        self.returns = counter("returns", "Backends brought in.", "backend")
        self.queue_time = histogram("queue_time_seconds", "Wait for a backend.")
        self.first_byte = histogram(
            "time_to_first_byte_seconds",
            "From the request to the first byte of its answer.",
            "backend",
        )
        self.duration = histogram(
            "request_duration_seconds", "From the request to the end of its answer.", "backend"
        )
        self.queue_length = Gauge(PREFIX + "queue_length", "Requests waiting.", registry=registry)
        self._up = self._gauge("backend_up", "Whether a backend gets new requests.")
        self._open = self._gauge("backend_open_requests", "Open requests of this router.")
        self._tokens = self._gauge("backend_outstanding_tokens", "Tokens they may need, estimated.")

    def watch(self, backends: Iterable[Backend]) -> None:
        """Show the state of these backends."""
        for backend in backends:
            self._watch(backend)

    def _watch(self, backend: Backend) -> None:
        name = backend.name
        self._up.labels(name).set_function(lambda: float(backend.is_offered))
        self._open.labels(name).set_function(lambda: float(backend.num_open))
        self._tokens.labels(name).set_function(lambda: float(backend.num_outstanding_tokens))
        self.ejections.labels(name)
        self.returns.labels(name)

    def text(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(PREFIX + name, text, ["backend"], registry=self.registry)
