"""The router as a web application: who may ask, what is asked, and the answer.

Puts the parts together; how each works is known by them.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from uuid import uuid4

import aiohttp
from aiohttp import web

from engine.router.admin import OWN_PATHS, add_admin_routes
from engine.router.api_keys import NOBODY, ApiKey, KeyRing, RateLimits
from engine.router.backend import Backend
from engine.router.dispatcher import Dispatcher
from engine.router.errors import RouterError
from engine.router.exchange import OutgoingRequest
from engine.router.fleet import Fleet
from engine.router.headers import REQUEST_ID, for_backend, request_id
from engine.router.metrics import RouterMetrics
from engine.router.models import merged_models
from engine.router.monitor import Monitor
from engine.router.proxy import Proxy
from engine.router.routed_request import RoutedHTTPRequest, read_envelope
from engine.router.settings import RouterSettings
from engine.router.trusted_proxies import TrustedProxies
from workbench.router import Router

LOGGER = logging.getLogger("workbench.router")
KEEP_ALIVE_S = 3.0  # below uvicorn's, so that no request meets a connection that is being closed
CLIENT_GONE = 499  # nobody reads it
SESSION_ID = "X-Session-Id"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Front:
    """One router. Made in a running event loop, ended with `close`.

    Args:
        policy: Of `workbench/router.py`.
        backends: Of `make_backends`.
        keys: Who may ask; none: everybody.
        clock: Seconds, monotonic.
        new_id: Makes ids of requests.
    """

    def __init__(
        self,
        policy: Router,
        backends: Sequence[Backend],
        settings: RouterSettings,
        keys: Iterable[ApiKey] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self.settings = settings
        self.metrics = RouterMetrics()
        self.metrics.watch(backends)
        retry_after = settings.health.interval_s * settings.health.healthy_after
        self.dispatcher = Dispatcher(
            policy, backends, settings.queue, self.metrics, clock, retry_after
        )
        self.fleet = Fleet(backends, self.dispatcher, self.metrics, clock)
        self.session = _session(settings)
        self.monitor = Monitor(self.fleet, self.session, settings, clock)
        self.is_draining = False
        self.clock = clock
        self._keys = KeyRing(keys)
        self._limits = RateLimits()
        self._new_id = new_id
        self._trusted = TrustedProxies(settings.trusted_proxies)
        self._proxy = Proxy(
            self.dispatcher, self.fleet, self.session, settings, self.metrics, clock
        )
        self._ids: dict[int, str] = {}  # of open requests, by their identity
        self._idle = asyncio.Event()
        self._idle.set()

    def app(self) -> web.Application:
        """The application; `AppRunner` must cancel handlers whose client went away."""
        app = web.Application(middlewares=[self._middleware])
        add_admin_routes(app, self)
        app.router.add_get("/v1/models", self._models)
        app.router.add_route("*", "/v1/{path:.*}", self._forward)
        for path in ("/tokenize", "/detokenize"):
            app.router.add_route("*", path, self._forward)
        return app

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return len(self._ids)

    def drain(self) -> None:
        """Refuse new requests from now on."""
        self.is_draining = True

    async def wait_idle(self) -> None:
        """Until no request is open."""
        await self._idle.wait()

    def abort(self, reason: str) -> None:
        """End all open requests with an error."""
        self.drain()
        self.dispatcher.close(reason)
        self._proxy.abandon_all(reason)

    async def close(self) -> None:
        """Close the connections to the backends."""
        await self.session.close()

    async def _forward(self, http: web.Request) -> web.StreamResponse:
        key = self._admit(http)
        _path(http)  # before the body
        body = await self._body(http)
        client_id = key.name if key else NOBODY
        request = RoutedHTTPRequest(
            self._ids[id(http)],
            client_id,
            http.path,
            read_envelope(body),
            self.settings.prompt,
            http.headers.get(SESSION_ID),
        )
        charged = request.num_tokens
        try:
            self._limits.admit(key, charged, self.clock())
        except RouterError:
            self.metrics.limited.labels(client_id).inc()
            raise
        used: int | None = 0
        try:
            outcome = await self._proxy.forward(http, request, self._outgoing(http, body))
            used = outcome.tokens_used
        except (asyncio.CancelledError, ConnectionResetError):
            used = None  # it may have used any number of them
            raise
        finally:
            if used is not None:
                self._limits.settle(key, charged, used, self.clock())
        return outcome.response

    async def _models(self, http: web.Request) -> web.StreamResponse:
        self._admit(http)
        return await merged_models(self.fleet, self.session, self._outgoing(http, b""))

    def _admit(self, http: web.Request) -> ApiKey | None:
        """The client, if it may ask now."""
        key = self._keys.find(http.headers.get("Authorization"))
        if key is None and not self._keys.is_open:
            raise RouterError(
                401, "the API key is missing or wrong: send Authorization: Bearer KEY"
            )
        if self.is_draining:
            raise RouterError(
                503, "the router is shutting down: ask another one", retry_after_s=1.0
            )
        return key

    async def _body(self, http: web.Request) -> bytes:
        limit, silence_s = self.settings.max_body_bytes, self.settings.body_timeout_s
        body = bytearray()
        try:
            while True:
                async with asyncio.timeout(silence_s):
                    piece = await http.content.readany()
                if not piece:
                    return bytes(body)
                body += piece
                if len(body) > limit:
                    raise RouterError(
                        413, f"the body of the request is longer than {limit} bytes: send less"
                    )
        except web.RequestPayloadError as error:
            raise RouterError(
                400, f"the body of the request cannot be read: {' '.join(str(error).split())}"
            ) from None
        except TimeoutError:
            raise RouterError(
                408, f"nothing of the body came for {silence_s:g} s: send it faster", closes=True
            ) from None

    def _outgoing(self, http: web.Request, body: bytes) -> OutgoingRequest:
        key = self.settings.backend_api_key
        headers = for_backend(
            http.headers,
            request_id=self._ids[id(http)],
            client_address=http.remote,
            scheme=http.scheme,
            is_trusted=http.remote in self._trusted,
            authorization=f"Bearer {key}" if key else None,
            keeps_authorization=self._keys.is_open,
        )
        return OutgoingRequest(self._ids[id(http)], http.method, _path(http), headers, body)

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Gives the request its id, counts it as open, and tells errors in OpenAI's form."""
        self._ids[id(request)] = request_id(request.headers, self._new_id)
        self._idle.clear()
        try:
            return await handler(request)
        except asyncio.CancelledError:
            self.metrics.disconnects.inc()
            raise
        except ConnectionResetError:
            self.metrics.disconnects.inc()
            return web.Response(status=CLIENT_GONE)
        except Exception as error:
            return self._told(request, error)
        finally:
            del self._ids[id(request)]
            if not self._ids:
                self._idle.set()

    def _told(self, http: web.Request, error: Exception) -> web.Response:
        if isinstance(error, web.HTTPException):
            error = RouterError(error.status, f"{http.method} {http.path}: {error.reason}")
        if not isinstance(error, RouterError):
            LOGGER.exception("request %s failed", self._ids[id(http)])
            error = RouterError(500, "the router failed; its log says why")
        if http.path not in OWN_PATHS:
            self.metrics.refused.labels(error.status).inc()
        headers = {**error.headers, REQUEST_ID: self._ids[id(http)]}
        told = web.Response(
            status=error.status, body=error.body, headers=headers, content_type="application/json"
        )
        if self.is_draining or error.closes:
            told.force_close()
        return told


def _path(http: web.Request) -> str:
    """Path and query for a backend. A path that leaves the API's part of it is refused."""
    if not {".", ".."}.isdisjoint(http.path.split("/")):
        raise RouterError(400, "the path may not hold the segments . and ..: name it in full")
    return http.rel_url.raw_path_qs  # raw_path may be a whole URL


def _session(settings: RouterSettings) -> aiohttp.ClientSession:
    limits = aiohttp.ClientTimeout(
        total=None,
        sock_connect=settings.connect_timeout_s,
        sock_read=settings.idle_timeout_s,
    )
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
        timeout=limits,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )
