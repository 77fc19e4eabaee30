"""Counts HTTP requests: how many, how long, how large, by the route that served them.

Labels never hold what a client wrote: a route counts under its template, everything that no route
serves under "none", a method nobody knows under "other". Names and buckets are those that vLLM's
dashboards use. Knows nothing of what a request asks for.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client.core import Metric
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.server.metrics.buckets import HTTP_FINE_S, HTTP_S
from engine.server.metrics.series import FamilySet

UNCOUNTED = frozenset({"/metrics", "/health", "/ready", "/ping", "/load", "/version"})
"""Routes that machines ask every few seconds; they would drown the others."""
NO_ROUTE = "none"
METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)
SERVER_ERROR = 500
CLIENT_GONE = 499
"""A client that had left before its answer began, as proxies count it."""


class HTTPMetrics:
    """The http_* metrics of one app."""

    def __init__(self) -> None:
        self._families = families = FamilySet()
        self._requests = families.counter(
            "http_requests",
            "HTTP requests by route, method and class of status.",
            *("handler", "status", "method"),
        )
        self._request_bytes = families.summary(
            "http_request_size_bytes",
            "Content-Length of requests, 0 where there is none.",
            "handler",
        )
        self._response_bytes = families.summary(
            "http_response_size_bytes",
            "Content-Length of responses, 0 where there is none, as in streams.",
            "handler",
        )
        self._all_seconds = families.histogram(
            "http_request_duration_highr_seconds",
            "Seconds from a request to the end of its response, all routes together.",
            HTTP_FINE_S,
        ).series()
        self._seconds = families.histogram(
            "http_request_duration_seconds",
            "Seconds from a request to the end of its response, by route.",
            HTTP_S,
            *("handler", "method"),
        )

    def collect(self) -> Iterator[Metric]:
        """The metrics as Prometheus samples."""
        return self._families.collect()

    def observe(
        self,
        handler: str,
        method: str,
        status: int,
        duration_s: float,
        request_bytes: int,
        response_bytes: int,
    ) -> None:
        """Count one request that has been answered."""
        method = method if method in METHODS else "other"
        self._requests.series(handler, f"{status // 100}xx", method).value += 1
        self._request_bytes.series(handler).observe(request_bytes)
        self._response_bytes.series(handler).observe(response_bytes)
        self._all_seconds.observe(duration_s)
        self._seconds.series(handler, method).observe(duration_s)


class HTTPMetricsMiddleware:
    """Feeds HTTPMetrics with every request of an app.

    Args:
        app: What answers.
        metrics: What is fed.
        routes: The app's routes, the list itself: routes may be added later.
    """

    def __init__(self, app: ASGIApp, metrics: HTTPMetrics, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNCOUNTED:
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status, response_bytes = 0, 0

        async def counted_send(message: Message) -> None:
            nonlocal status, response_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                response_bytes = _content_length(message.get("headers", ()))
            await send(message)

        try:
            await self._app(scope, receive, counted_send)
            status = status or CLIENT_GONE
        except ClientDisconnect:
            status = status or CLIENT_GONE
            raise
        finally:
            self._metrics.observe(
                route_template(scope, self._routes),
                scope["method"],
                status or SERVER_ERROR,
                time.perf_counter() - start,
                _content_length(scope["headers"]),
                response_bytes,
            )


def route_template(scope: Scope, routes: Sequence[BaseRoute]) -> str:
    """The path of the route that serves a request, with its parameters' names in place; or none."""
    served_by: Any = scope.get("route")
    if served_by is None:
        matches = ((route, route.matches(scope)[0]) for route in routes)
        served_by = next((route for route, match in matches if match is not Match.NONE), None)
    return str(getattr(served_by, "path", NO_ROUTE)) or NO_ROUTE


def _content_length(headers: Sequence[tuple[bytes, bytes]]) -> int:
    for name, value in headers:
        if name.lower() == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
