"""What an operator may set of logs, metrics and traces, and how it all joins an app.

Knows the parts by name; what they write, they know.
"""

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from engine.async_llm import AsyncLLM
from engine.server import metrics
from engine.server.logging import LEVELS, LOG_FORMATS, log_config
from engine.server.request_log import RequestLog
from engine.server.settings import ServerSettings
from engine.server.stats_log import StatsLog
from engine.server.tracing import RequestTracer, make_provider
from workbench.config import at_least, check_types, one_of
from workbench.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservabilitySettings:
    """What a server tells of itself; metrics it always tells.

    Attributes:
        log_format: "text" or "json".
        log_level: The least that is logged.
        enable_log_requests: A line when a request comes and one when it has ended.
        max_log_len: Most characters of a client's text in a line; None: all.
        disable_log_stats: No line every few seconds about throughput, queue and cache.
        log_stats_interval: Seconds between two of these lines.
        otlp_traces_endpoint: URL of an OpenTelemetry collector for traces; None: no traces.
    """

    log_format: str = "text"
    log_level: str = "info"
    enable_log_requests: bool = False
    max_log_len: int | None = None
    disable_log_stats: bool = False
    log_stats_interval: float = 10.0
    otlp_traces_endpoint: str | None = None

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 0, "max_log_len")
        one_of(self, "log_format", LOG_FORMATS)
        one_of(self, "log_level", LEVELS)
        if not self.log_stats_interval > 0:
            raise ConfigError(
                f"log_stats_interval={self.log_stats_interval} must be above 0: set "
                "disable_log_stats to have no such lines"
            )

    def log_config(self) -> dict[str, Any]:
        """For logging.config.dictConfig and uvicorn's log_config."""
        return log_config(self.log_format, self.log_level)


class Observability:
    """An extension of an app: metrics, and what the settings ask for.

    Args:
        settings: Which parts.

    Raises:
        ConfigError: Traces are asked for and cannot be made.
    """

    def __init__(self, settings: ObservabilitySettings | None = None) -> None:
        self._settings = settings or ObservabilitySettings()
        endpoint = self._settings.otlp_traces_endpoint
        self._provider = None if endpoint is None else make_provider(endpoint)
        self._closers: list[Any] = []

    def install(self, app: FastAPI, llm: AsyncLLM, settings: ServerSettings) -> None:
        """Join an app; see `build_app`."""
        metrics.install(app, llm, settings)
        if self._settings.enable_log_requests:
            llm.add_listener(RequestLog(self._settings.max_log_len))
        if not self._settings.disable_log_stats:
            stats_log = StatsLog(llm.info, self._settings.log_stats_interval)
            llm.add_listener(stats_log)
            self._closers.append(stats_log)
        if self._provider is not None:
            tracer = RequestTracer(self._provider, settings.model_name)
            llm.add_listener(tracer)
            self._closers.append(tracer)

    def close(self) -> None:
        """Send what has not been sent, write no more."""
        while self._closers:
            self._closers.pop().close()
