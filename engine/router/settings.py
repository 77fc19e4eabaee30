"""What an operator may set of the router, checked when it is built. The defaults live here only.

Knows no policy: that is an object of `workbench/router.py`.
"""

from dataclasses import dataclass, field

from engine.router.trusted_proxies import TrustedProxies
from workbench.config import at_least, check_types
from workbench.errors import ConfigError

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """When a backend is ejected and when it returns.

    Attributes:
        path: Asked with GET; an answer below 400 is good.
        interval_s: Between two checks.
        timeout_s: Of a check.
        unhealthy_after: Failed checks in a row that eject a backend. A refused connection ejects
            it at once.
        healthy_after: Good checks in a row that bring it back.
        max_failures: Requests in a row that it broke off or answered with 500, 502 or 504, after
            which it is ejected.
        ejection_s: Least time that an ejection lasts; doubled by every further ejection until a
            request succeeds.
        max_ejection_s: Most that it is doubled to.
        models_interval_s: Between two looks at the list of models.
    """

    path: str = "/health"
    interval_s: float = 1.0
    timeout_s: float = 2.0
    unhealthy_after: int = 3
    healthy_after: int = 2
    max_failures: int = 3
    ejection_s: float = 1.0
    max_ejection_s: float = 30.0
    models_interval_s: float = 30.0

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "unhealthy_after", "healthy_after", "max_failures")
        at_least(self, 0, "ejection_s", "max_ejection_s")
        at_least(self, 0.001, "interval_s", "timeout_s", "models_interval_s")
        if not self.path.startswith("/"):
            raise ConfigError(f"path={self.path!r} must begin with /, for example /health")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """Who waits, and for how long.

    Attributes:
        max_concurrency: Most open requests of a backend; None: no limit.
        max_queue: Most requests that wait for a backend; further ones get 503.
        queue_timeout_s: Longest wait; then 503.
        max_pause_s: Most of a backend's Retry-After that is heeded.
    """

    max_concurrency: int | None = None
    max_queue: int = 1024
    queue_timeout_s: float = 30.0
    max_pause_s: float = 10.0

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "max_concurrency")
        at_least(self, 0, "max_queue", "queue_timeout_s", "max_pause_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSettings:
    """How a prompt is measured without its tokenizer.

    Attributes:
        block_size: Tokens of a block whose key is remembered.
        bytes_per_token: UTF-8 bytes of text that count as one token.
        memory_blocks: Blocks remembered of each backend, the least recently sent forgotten first.
        default_max_tokens: Counted for the answer to a request that sets no limit.
    """

    block_size: int = 16
    bytes_per_token: float = 4.0
    memory_blocks: int = 65536
    default_max_tokens: int = 256

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "block_size", "bytes_per_token", "memory_blocks")
        at_least(self, 0, "default_max_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """All settings of one router.

    Attributes:
        max_retries: Further backends that a request is tried on before anything was answered.
        max_body_bytes: Of a request.
        body_timeout_s: Longest silence of a client within the body of its request.
        connect_timeout_s: For a connection to a backend.
        idle_timeout_s: Longest silence of a backend within a request.
        drain_timeout_s: For open requests after SIGTERM.
        trusted_proxies: Addresses or networks whose word for the client's address, scheme and host
            is passed on (X-Forwarded-…, Forwarded); "*": everybody's.
        backend_api_key: Sent to backends in place of the client's; None: the client's is passed on
            where the router checks none.
        admin_key: For draining backends; None: nobody may.
    """

    health: HealthSettings = field(default_factory=HealthSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    prompt: PromptSettings = field(default_factory=PromptSettings)
    max_retries: int = 2
    max_body_bytes: int = 32 * MIB
    body_timeout_s: float = 60.0
    connect_timeout_s: float = 2.0
    idle_timeout_s: float = 600.0
    drain_timeout_s: float = 30.0
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1")
    backend_api_key: str | None = None
    admin_key: str | None = None

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 0, "max_retries", "drain_timeout_s")
        at_least(self, 1, "max_body_bytes")
        at_least(self, 0.001, "body_timeout_s", "connect_timeout_s", "idle_timeout_s")
        TrustedProxies(self.trusted_proxies)
        for name in ("backend_api_key", "admin_key"):
            value = getattr(self, name)
            if value is not None and (not value or not value.isascii() or not value.isprintable()):
                raise ConfigError(f"{name} must be text of printable ASCII characters, not empty")
