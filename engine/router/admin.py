"""What the router says of itself, and what its operator may do: health, state, metrics, draining.

Knows the paths and their answers; the parts that they speak of know the rest.
"""

import hmac
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Protocol

from aiohttp import web

from engine.router.backend import Backend
from engine.router.dispatcher import Dispatcher
from engine.router.errors import RouterError
from engine.router.fleet import Fleet
from engine.router.metrics import RouterMetrics
from engine.router.settings import RouterSettings

OWN_PATHS = frozenset({"/health", "/ready", "/metrics", "/load", "/backends", "/drain", "/undrain"})
"""Where nobody asks for work."""


class Administered(Protocol):
    """What is shown and ruled here."""

    settings: RouterSettings
    metrics: RouterMetrics
    dispatcher: Dispatcher
    fleet: Fleet
    is_draining: bool

    @property
    def num_open(self) -> int: ...
    def clock(self) -> float: ...


def add_admin_routes(app: web.Application, front: Administered) -> None:
    """Everything but the way to the backends."""
    admin = Admin(front)
    app.router.add_get("/health", admin.health)
    app.router.add_get("/ready", admin.ready)
    app.router.add_get("/metrics", admin.metrics)
    app.router.add_get("/load", admin.load)
    app.router.add_get("/backends", admin.backends)
    app.router.add_post("/drain", admin.drain)
    app.router.add_post("/undrain", admin.undrain)


class Admin:
    """The handlers."""

    def __init__(self, front: Administered) -> None:
        self._front = front

    async def health(self, http: web.Request) -> web.Response:
        """200 if any backend is up."""
        up, total = self._front.fleet.num_up, len(self._front.fleet.backends)
        if not up:
            raise RouterError(503, f"0 of {total} backends are up", retry_after_s=1.0)
        return _json({"status": "ok", "backends_up": up, "backends": total})

    async def ready(self, http: web.Request) -> web.Response:
        """200 if new requests are taken."""
        fleet = self._front.fleet
        if self._front.is_draining:
            raise RouterError(503, "the router is shutting down", retry_after_s=1.0)
        if not fleet.num_offered:
            total = len(fleet.backends)
            raise RouterError(503, f"0 of {total} backends take requests", retry_after_s=1.0)
        return _json({"status": "ready", "backends_ready": fleet.num_offered})

    async def metrics(self, http: web.Request) -> web.Response:
        """Prometheus's text."""
        body = self._front.metrics.text()
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return web.Response(body=body, headers={"Content-Type": kind})

    async def load(self, http: web.Request) -> web.Response:
        """In the form of a server's, so that a router can stand behind a router."""
        backends = [b for b in self._front.fleet.backends if b.health.is_up]
        running = sum(b.num_running for b in backends)
        waiting = sum(b.num_waiting for b in backends) + self._front.dispatcher.num_waiting
        usages = [b.kv_cache_usage for b in backends]
        return _json({
            "server_load": running + waiting,
            "num_running": running,
            "num_waiting": waiting,
            "num_outstanding_tokens": sum(b.num_outstanding_tokens for b in backends),
            "kv_cache_usage": sum(usages) / len(usages) if usages else 0.0,
            "is_draining": self._front.is_draining,
            "world": "router",
        })  # fmt: skip

    async def backends(self, http: web.Request) -> web.Response:
        """The state of every backend. Asks for the admin key if there is one."""
        if self._front.settings.admin_key is not None:
            self._authorize(http)
        now = self._front.clock()
        return _json({
            "is_draining": self._front.is_draining,
            "queue_length": self._front.dispatcher.num_waiting,
            "backends": [backend.state(now) for backend in self._front.fleet.backends],
        })  # fmt: skip

    async def drain(self, http: web.Request) -> web.Response:
        """Send a backend nothing new."""
        return self._set_drained(http, True)

    async def undrain(self, http: web.Request) -> web.Response:
        """Send it requests again."""
        return self._set_drained(http, False)

    def _set_drained(self, http: web.Request, is_drained: bool) -> web.Response:
        self._authorize(http)
        backend = self._named(http.query)
        self._front.fleet.set_drained(backend, is_drained)
        return _json(backend.state(self._front.clock()))

    def _authorize(self, http: web.Request) -> None:
        wanted = self._front.settings.admin_key
        if wanted is None:
            raise RouterError(403, "the router was started without an admin key: give --admin-key")
        scheme, _, given = http.headers.get("Authorization", "").partition(" ")
        digests = (
            sha256(text.encode(errors="surrogateescape")).digest()
            for text in (given.strip(), wanted)
        )
        if not hmac.compare_digest(*digests) or scheme.lower() != "bearer":
            raise RouterError(
                401, "the admin key is missing or wrong: send Authorization: Bearer KEY"
            )

    def _named(self, query: Mapping[str, str]) -> Backend:
        name = query.get("backend", "")
        backend = self._front.fleet.find(name)
        if backend is None:
            known = ", ".join(b.url for b in self._front.fleet.backends)
            raise RouterError(
                404,
                f"there is no backend {name[:200]!r}: give ?backend= one of {known}",
                param="backend",
            )
        return backend


def _json(value: Any) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), content_type="application/json")
