"""The backends together: what happened to one, and what follows for the others and for requests.

Every change of a backend's state goes through here, so that it is logged, counted and acted upon.
"""

import logging
from collections.abc import Callable, Sequence

from engine.router.backend import Backend
from engine.router.dispatcher import Dispatcher
from engine.router.health import Transition
from engine.router.metrics import RouterMetrics
from engine.server.open_files import OpenFiles

LOGGER = logging.getLogger("workbench.router")


class Fleet:
    """State changes of the backends.

    Attributes:
        hurry: Called with a backend that should be checked at once.
        files: Says that this process has no file left for a connection.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        dispatcher: Dispatcher,
        metrics: RouterMetrics,
        clock: Callable[[], float],
    ) -> None:
        self.backends = backends
        self.hurry: Callable[[Backend], None] = lambda backend: None
        self.files = OpenFiles(clock)
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._clock = clock

    @property
    def num_offered(self) -> int:
        """Backends that get new requests."""
        return sum(backend.is_offered for backend in self.backends)

    @property
    def num_up(self) -> int:
        """Backends that answer, draining ones among them."""
        return sum(backend.health.is_up for backend in self.backends)

    def find(self, name: str) -> Backend | None:
        """The backend with this URL or name."""
        wanted = name.rstrip("/").removesuffix("/v1")
        return next((b for b in self.backends if wanted in (b.url, b.name)), None)

    def check_passed(self, backend: Backend) -> None:
        """A health check was answered well."""
        self._act(backend, backend.health.check_passed(self._clock()))

    def check_failed(self, backend: Backend, reason: str) -> None:
        """A health check timed out or was answered with an error."""
        self._act(backend, backend.health.check_failed(reason, self._clock()))

    def refused(self, backend: Backend, reason: str) -> None:
        """No connection could be made."""
        self._act(backend, backend.health.refused(reason, self._clock()))

    def request_failed(self, backend: Backend, reason: str) -> None:
        """A request was broken off or answered with a server's error; a check tells more."""
        self._act(backend, backend.health.request_failed(reason, self._clock()))
        self.hurry(backend)

    def request_succeeded(self, backend: Backend) -> None:
        """A request was answered."""
        backend.health.request_succeeded()

    def set_drained(self, backend: Backend, is_drained: bool) -> None:
        """An operator's wish: no new requests, or new ones again."""
        backend.is_drained = is_drained
        LOGGER.info("backend %s is %s", backend.url, "drained" if is_drained else "in use again")
        self._dispatcher.backends_changed()

    def load_changed(self, backend: Backend, was_offered: bool) -> None:
        """A report has come; it may say that the backend drains, or that it no longer does."""
        if backend.is_offered != was_offered:
            LOGGER.info("backend %s says it is %sdraining", backend.url, "not " * (not was_offered))
            self._dispatcher.backends_changed()

    def _act(self, backend: Backend, change: Transition | None) -> None:
        if change is None:
            return
        if change.is_up:
            self._metrics.returns.labels(backend.name).inc()
            LOGGER.info("backend %s is up: %s", backend.url, change.reason)
        else:
            self._metrics.ejections.labels(backend.name).inc()
            LOGGER.warning("backend %s is down: %s", backend.url, change.reason)
            backend.went_down()
            for exchange in list(backend.waiting):
                exchange.abandon(f"the backend went down: {change.reason}")
        self._dispatcher.backends_changed()
