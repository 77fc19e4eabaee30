"""One server behind the router: what is known of it, and what the policies see (ReplicaView).

Its requests that went through this router are counted exactly; requests from elsewhere are those
that it reports on top of them. It opens no connection.
"""

from collections.abc import Hashable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, Protocol
from urllib.parse import urlsplit

from engine.router.backend_load import BackendLoad
from engine.router.health import BackendHealth
from engine.router.prefix_memory import PrefixMemory
from engine.router.routed_request import RoutedHTTPRequest
from engine.router.settings import RouterSettings
from workbench.errors import ConfigError


class Abandonable(Protocol):
    """An exchange that waits for an answer."""

    def abandon(self, reason: str) -> None:
        """Wait no longer; the request is tried elsewhere."""
        ...


class Backend:
    """A server, its state and its share of the work.

    Args:
        url: Its root, as `root_url` gives it.

    Attributes:
        identity: Whole number below 2**64, the same for the same URL in every router.
        models: Names that it serves; None: not known.
        num_open: Requests of this router that it has now.
        waiting: Those of them that it has not begun to answer.
        is_drained: An operator sends it nothing new.
    """

    def __init__(self, url: str, settings: RouterSettings) -> None:
        self.url = url
        self.name = url.partition("://")[2]
        self.identity = int.from_bytes(blake2b(url.encode(), digest_size=8).digest())
        self.health = BackendHealth(settings.health)
        self.memory = PrefixMemory(settings.prompt.memory_blocks)
        self.models: frozenset[str] | None = None
        self.load: BackendLoad | None = None
        self.is_drained = False
        self.num_open = 0
        self.num_open_tokens = 0
        self.waiting: set[Abandonable] = set()
        self._block_size = settings.prompt.block_size
        self._max_concurrency = settings.queue.max_concurrency
        self._paused_until = 0.0
        self._foreign_requests = 0
        self._foreign_tokens = 0

    def opened(self, request: RoutedHTTPRequest) -> None:
        """A request is sent to it."""
        self.num_open += 1
        self.num_open_tokens += request.num_tokens
        self.memory.add(request.known_hashes)

    def closed(self, request: RoutedHTTPRequest) -> None:
        """A request has ended here, in whatever way."""
        self.num_open -= 1
        self.num_open_tokens -= request.num_tokens

    def reported(self, load: BackendLoad | None, open_before: int, tokens_before: int) -> None:
        """A report has come; None: it could not be had.

        `…_before` are the own counts when it was asked. A request that comes or goes while the
        report is under way is counted as our own, so that no load is made up.
        """
        self.load = load
        own = max(open_before, self.num_open)
        tokens = max(tokens_before, self.num_open_tokens)
        self._foreign_requests = max(0, load.num_requests - own) if load else 0
        said = load.num_outstanding_tokens if load and self._foreign_requests else None
        self._foreign_tokens = max(0, said - tokens) if said is not None else 0

    def pause(self, until: float) -> None:
        """It asked to be left alone until a time on the router's clock."""
        self._paused_until = max(self._paused_until, until)

    def went_down(self) -> None:
        """Forget what a server that stopped no longer holds."""
        self.memory.clear()
        self.load = None
        self._foreign_requests = self._foreign_tokens = 0
        self._paused_until = 0.0

    @property
    def is_offered(self) -> bool:
        """Whether new requests may go to it, now or after a pause."""
        reported = self.load is not None and self.load.is_draining
        return self.health.is_up and not self.is_drained and not reported

    def has_slot(self, now: float) -> bool:
        """Whether it may have one more request now."""
        if now < self._paused_until:
            return False
        return self._max_concurrency is None or self.num_open < self._max_concurrency

    def serves(self, model: str | None) -> bool | None:
        """Whether it serves the model; None: not known."""
        return None if model is None or self.models is None else model in self.models

    @property
    def num_waiting(self) -> int:
        """Waiting requests as of the last report, never more than it has."""
        waiting = self.load.num_waiting if self.load else 0
        return min(waiting, self.num_open + self._foreign_requests)

    @property
    def num_running(self) -> int:
        """The other requests: own ones, and foreign ones as of the last report."""
        return self.num_open + self._foreign_requests - self.num_waiting

    @property
    def num_outstanding_tokens(self) -> int:
        """Prompt and answer tokens that its requests may need at most."""
        return self.num_open_tokens + self._foreign_tokens

    @property
    def kv_cache_usage(self) -> float:
        """As of the last report; 0 without one."""
        return self.load.kv_cache_usage if self.load else 0.0

    def cached_prefix_tokens(self, keys: Sequence[Hashable]) -> int:
        """Tokens of the longest prefix of these keys that it was sent and that is remembered."""
        return self.memory.num_known(keys) * self._block_size

    def state(self, now: float) -> dict[str, Any]:
        """For people and scripts."""
        health = self.health
        return {
            "url": self.url,
            "state": self._state(now),
            "reason": health.reason,
            "seconds_in_state": round(max(0.0, now - health.since), 3),
            "ejections": health.num_ejections,
            "open_requests": self.num_open,
            "running": self.num_running,
            "waiting": self.num_waiting,
            "outstanding_tokens": self.num_outstanding_tokens,
            "kv_cache_usage": self.kv_cache_usage,
            "remembered_blocks": len(self.memory),
            "reports_load": self.load is not None,
            "models": sorted(self.models) if self.models is not None else None,
        }

    def _state(self, now: float) -> str:
        if not self.health.is_up:
            return "down"
        if not self.is_offered:
            return "draining"
        return "paused" if now < self._paused_until else "up"


def root_url(text: str) -> str:
    """A backend's URL without a slash or /v1 at its end. Raises ConfigError."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(
            f"--backend {text!r} is no URL ({error}): write http://HOST:PORT"
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--backend {text!r} is no URL of a server: write http://HOST:PORT")
    if parts.username is not None or parts.query or parts.fragment or port == 0:
        raise ConfigError(
            f"--backend {text!r} may have a scheme, a host, a port and a path only: "
            "write http://HOST:PORT"
        )
    path = parts.path.rstrip("/").removesuffix("/v1")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def make_backends(urls: Iterable[str], settings: RouterSettings) -> list[Backend]:
    """The backends of a router. Raises ConfigError for none, a bad one or one named twice."""
    roots = [root_url(url) for url in urls]
    if not roots:
        raise ConfigError(
            "a router needs a backend: give --backend http://HOST:PORT, once for each"
        )
    for root in roots:
        if roots.count(root) > 1:
            raise ConfigError(f"--backend {root} is given twice: name each server once")
    return [Backend(root, settings) for root in roots]
