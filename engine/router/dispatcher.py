"""Who goes where, and who waits: the policy is asked when a backend has room.

Knows the queue and the places in backends, and nothing of HTTP but the status of its refusals.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

from engine.router.backend import Backend
from engine.router.errors import RouterError
from engine.router.fair_queue import FairQueue
from engine.router.metrics import RouterMetrics
from engine.router.routed_request import RoutedHTTPRequest
from engine.router.settings import QueueSettings
from workbench.router import Router

TIMER_SLACK_S = 0.001


class Ticket:
    """A request that waits. Hashed by identity.

    Attributes:
        refused: Backends that it must not go to again.
        avoided: Backends that it goes to again only if there is no other one.
    """

    __slots__ = ("avoided", "future", "refused", "request")

    def __init__(
        self,
        request: RoutedHTTPRequest,
        refused: Collection[Backend],
        avoided: Collection[Backend],
        future: "asyncio.Future[Backend]",
    ) -> None:
        self.request = request
        self.refused = refused
        self.avoided = avoided
        self.future = future


class Dispatcher:
    """Gives requests their places.

    Args:
        policy: Of `workbench/router.py`; sees the backends that have room.
        retry_after_s: Told to clients when no backend is up.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        policy: Router,
        backends: Sequence[Backend],
        settings: QueueSettings,
        metrics: RouterMetrics,
        clock: Callable[[], float],
        retry_after_s: float = 2.0,
    ) -> None:
        self._policy = policy
        self._backends = backends
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._retry_after_s = retry_after_s
        self._queue: FairQueue[Ticket] = FairQueue()
        self._closed: str | None = None
        metrics.queue_length.set_function(lambda: float(len(self._queue)))

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a backend."""
        return len(self._queue)

    async def acquire(
        self,
        request: RoutedHTTPRequest,
        refused: Collection[Backend] = (),
        avoided: Collection[Backend] = (),
    ) -> Backend:
        """A place in a backend, to be given back with `release`.

        A request that was tried before goes to the front of its client's line.

        Raises:
            RouterError: 503: no backend is up, the queue is full, or the wait was too long.
        """
        ticket = Ticket(request, refused, avoided, asyncio.get_running_loop().create_future())
        if problem := self._hopeless(ticket):
            raise problem
        began = self._clock()
        is_retry = bool(refused or avoided)
        self._queue.push(request.client_id, ticket, front=is_retry)
        self.pump()
        if not ticket.future.done() and len(self._queue) > self._settings.max_queue:
            self._queue.remove(request.client_id, ticket)
            limit = self._settings.max_queue
            raise self._unavailable(
                f"{limit} requests wait already, and the limit is max_queue={limit}"
            )
        try:
            async with asyncio.timeout(self._settings.queue_timeout_s):
                backend = await ticket.future
        except BaseException as error:
            self._give_up(ticket)
            if isinstance(error, TimeoutError):
                limit_s = self._settings.queue_timeout_s
                raise self._unavailable(f"no backend had room within {limit_s:g} s") from None
            raise
        self._metrics.queue_time.observe(self._clock() - began)
        return backend

    def release(self, request: RoutedHTTPRequest, backend: Backend) -> None:
        """The request has ended there, in whatever way."""
        backend.closed(request)
        if self._queue:
            self.pump()

    def pause(self, backend: Backend, seconds: float) -> None:
        """Send it nothing for a while; those that wait for it go on waiting."""
        seconds = min(seconds, self._settings.max_pause_s)
        backend.pause(self._clock() + seconds)
        asyncio.get_running_loop().call_later(seconds + TIMER_SLACK_S, self.pump)

    def backends_changed(self) -> None:
        """Look at everybody who waits again: one came up or went down."""
        for ticket in self._queue:
            if problem := self._hopeless(ticket):
                self._queue.remove(ticket.request.client_id, ticket)
                _settle(ticket, problem)
        self.pump()

    def close(self, reason: str) -> None:
        """Refuse everybody who waits, and everybody to come."""
        self._closed = reason
        self.backends_changed()

    def pump(self) -> None:
        """Give places to those who wait, in their order, as long as there are any."""
        now = self._clock()
        for ticket in self._queue:
            if not any(b.is_offered and b.has_slot(now) for b in self._backends):
                return
            free = [b for b in self._possible(ticket) if b.has_slot(now)]
            if free:
                self._queue.remove(ticket.request.client_id, ticket, served=True)
                self._grant(ticket, free, now)

    def _grant(self, ticket: Ticket, free: list[Backend], now: float) -> None:
        try:
            backend = free[self._policy.route(ticket.request, free, now)]
            backend.opened(ticket.request)
        except Exception as error:
            _settle(ticket, error)  # a policy's defect is the answer of this one request
            return
        if ticket.future.done():  # its client went away
            backend.closed(ticket.request)
        else:
            ticket.future.set_result(backend)

    def _give_up(self, ticket: Ticket) -> None:
        if self._queue.remove(ticket.request.client_id, ticket):
            return
        future = ticket.future
        if future.done() and not future.cancelled() and future.exception() is None:
            self.release(ticket.request, future.result())

    def _possible(self, ticket: Ticket) -> list[Backend]:
        """Backends that may take it now or later."""
        model = ticket.request.model
        able = [b for b in self._backends if b.serves(model) is not False] or self._backends
        offered = [b for b in able if b.is_offered and b not in ticket.refused]
        return [b for b in offered if b not in ticket.avoided] or offered

    def _hopeless(self, ticket: Ticket) -> RouterError | None:
        if self._closed is not None:
            return self._unavailable(self._closed)
        if self._possible(ticket):
            return None
        model = ticket.request.model
        known = any(b.serves(model) for b in self._backends)
        what = f"no backend that serves the model {model!r}" if known else "no backend"
        num_offered = sum(b.is_offered for b in self._backends)
        return self._unavailable(
            f"{what} is free to take the request: {num_offered} of {len(self._backends)} are up"
        )

    def _unavailable(self, message: str) -> RouterError:
        return RouterError(503, message, retry_after_s=self._retry_after_s)


def _settle(ticket: Ticket, error: Any) -> None:
    if not ticket.future.done():
        ticket.future.set_exception(error)
