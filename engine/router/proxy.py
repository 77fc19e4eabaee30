"""A request's way through the router: a place, an exchange, and another try where that is safe.

Knows what each way to fail means for the request and for the backend.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from engine.router.backend import Backend
from engine.router.dispatcher import Dispatcher
from engine.router.errors import RouterError, out_of_files
from engine.router.exchange import BrokenOffError, Exchange, NotBegunError, OutgoingRequest
from engine.router.fleet import Fleet
from engine.router.metrics import RouterMetrics
from engine.router.routed_request import RoutedHTTPRequest
from engine.router.settings import RouterSettings

LOGGER = logging.getLogger("workbench.router")
SERVER_ERRORS = frozenset({500, 502, 504})
UNAVAILABLE = 503
_TOTAL_TOKENS = re.compile(rb'"total_tokens"\s*:\s*(\d{1,15})')


@dataclass(slots=True)
class Outcome:
    """What became of a request; the tokens it used, if the answer says so."""

    response: web.StreamResponse
    tokens_used: int | None = None


class Proxy:
    """Sends requests to backends and their answers to clients.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        fleet: Fleet,
        session: aiohttp.ClientSession,
        settings: RouterSettings,
        metrics: RouterMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._dispatcher = dispatcher
        self._fleet = fleet
        self._session = session
        self._max_tries = 1 + settings.max_retries
        self._metrics = metrics
        self._clock = clock
        self._open: set[Exchange] = set()

    async def forward(
        self, client: web.Request, request: RoutedHTTPRequest, outgoing: OutgoingRequest
    ) -> Outcome:
        """The answer of some backend, sent to the client.

        Raises:
            RouterError: No backend could be asked, or none answered.
            ConnectionResetError: The client went away.
        """
        arrived = self._clock()
        refused: set[Backend] = set()
        avoided: set[Backend] = set()
        last: NotBegunError | None = None
        for _ in range(self._max_tries):
            try:
                backend = await self._dispatcher.acquire(request, refused, avoided)
            except RouterError:
                if last is not None and last.answer is not None:
                    break  # what a backend said tells the client more
                raise
            if last is not None:
                self._metrics.retries.labels(last.reason).inc()
            exchange = Exchange(client, outgoing, backend, self._session)
            try:
                return await self._try(exchange, backend, arrived)
            except NotBegunError as failure:
                if failure.reason == "shortage":
                    self._fleet.files.tell()
                    raise out_of_files() from failure
                last = failure
                (avoided if failure.reason == "lost" else refused).add(backend)
                LOGGER.info(
                    "request %s: %s failed before an answer: %s",
                    outgoing.request_id, backend.url, failure,
                )  # fmt: skip
                self._blame(backend, failure)
            finally:
                self._dispatcher.release(request, backend)
        assert last is not None
        return self._give_up(last, backend)

    def abandon_all(self, reason: str) -> None:
        """End every open exchange."""
        for exchange in list(self._open):
            exchange.abandon(reason)

    async def _try(self, exchange: Exchange, backend: Backend, arrived: float) -> Outcome:
        self._open.add(exchange)
        exchange.on_begin = lambda: self._metrics.first_byte.labels(backend.name).observe(
            self._clock() - arrived
        )
        try:
            response = await exchange.run()
        except BrokenOffError as error:
            LOGGER.warning(
                "request %s: %s broke its answer off: %s",
                exchange.request_id, backend.url, error,
            )  # fmt: skip
            if error.by_backend:
                self._metrics.broken.labels(backend.name).inc()
                self._fleet.request_failed(backend, f"an answer was broken off: {error}")
            self._count(backend, response := error.response, arrived)
            return Outcome(response)
        finally:
            self._open.discard(exchange)
        self._fleet.request_succeeded(backend)
        self._count(backend, response, arrived)
        served = response.status < 400
        return Outcome(response, _total_tokens(exchange.tail) if served else 0)

    def _count(self, backend: Backend, response: web.StreamResponse, arrived: float) -> None:
        self._metrics.requests.labels(backend.name, response.status).inc()
        self._metrics.duration.labels(backend.name).observe(self._clock() - arrived)

    def _blame(self, backend: Backend, failure: NotBegunError) -> None:
        """Tell the fleet, unless it knows already."""
        if failure.reason == "refused":
            self._fleet.refused(backend, str(failure))
        elif failure.reason == "lost" or failure.status in SERVER_ERRORS:
            self._fleet.request_failed(backend, str(failure))
        elif failure.status == UNAVAILABLE:
            self._dispatcher.pause(backend, failure.retry_after_s)
            self._fleet.hurry(backend)

    def _give_up(self, last: NotBegunError, backend: Backend) -> Outcome:
        if last.answer is None:
            raise RouterError(
                502, "no backend answered the request, the last one for: " + str(last)
            )
        self._metrics.requests.labels(backend.name, last.answer.status).inc()
        return Outcome(last.answer, 0)


def _total_tokens(tail: bytes) -> int | None:
    found = _TOTAL_TOKENS.findall(tail)
    return int(found[-1]) if found else None
