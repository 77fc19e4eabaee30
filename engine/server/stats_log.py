"""A line every few seconds about throughput, queue and cache, while there is work.

Knows the engine's numbers as a listener; knows no line's format.
"""

import asyncio
import logging
import time
from contextvars import Context

from engine.core_messages import CoreInfo, StepStats
from engine.request_listener import RequestListener
from engine.server.logging import fields
from engine.step_messages import StepDetail
from workbench.sampling_params import SamplingParams

logger = logging.getLogger(__name__)


class StatsLog(RequestListener):
    """Writes the line; an idle engine gets one last line and then none.

    Args:
        info: What the engine is.
        interval_s: Seconds between two lines.
    """

    def __init__(self, info: CoreInfo, interval_s: float = 10.0) -> None:
        self._num_blocks = max(info.num_kv_blocks, 1)
        self._interval_s = interval_s
        self._timer: asyncio.TimerHandle | None = None
        self._stats: StepStats | None = None
        self._num_waiting = 0
        self._since = 0.0
        self._prompt_tokens = 0
        self._generation_tokens = 0
        self._queries = 0
        self._hits = 0
        self._is_active = False

    def on_arrival(self, request_id: str, num_prompt_tokens: int, params: SamplingParams) -> None:
        """Begin to write, if nothing was going on."""
        if self._timer is None:
            self._since = time.perf_counter()
            self._schedule()

    def on_step(self, stats: StepStats, detail: StepDetail | None) -> None:
        """Take in a step."""
        self._stats = stats
        self._num_waiting = stats.num_waiting
        self._prompt_tokens += stats.num_prefill_tokens
        self._is_active = True

    def on_queue(self, num_waiting: int, num_compiling: int) -> None:
        """Take in how many wait."""
        self._num_waiting = num_waiting

    def on_tokens(self, request_id: str, num_new: int, now: float, is_first: bool) -> None:
        """Take in new tokens."""
        self._generation_tokens += num_new

    def on_core_dead(self, reason: str) -> None:
        """A new core counts from 0."""
        self._stats = None
        self._num_waiting = 0
        self._queries = self._hits = 0

    def close(self) -> None:
        """Write no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def write(self) -> None:
        """Write one line about the time since the last one."""
        now = time.perf_counter()
        elapsed = max(now - self._since, 1e-9)
        stats = self._stats
        used = 0 if stats is None else stats.num_used_blocks
        facts = {
            "prompt_tokens_per_s": round(self._prompt_tokens / elapsed, 1),
            "generation_tokens_per_s": round(self._generation_tokens / elapsed, 1),
            "running": 0 if stats is None else stats.num_running,
            "waiting": self._num_waiting,
            "kv_cache_usage": round(used / self._num_blocks, 4),
            "prefix_hit_rate": self._hit_rate(),
        }
        self._since, self._prompt_tokens, self._generation_tokens = now, 0, 0
        logger.info("engine statistics", extra=fields(**facts))

    def _hit_rate(self) -> float:
        """Share of the tokens looked up since the last line that were found."""
        if self._stats is None:
            return 0.0
        queries = self._stats.prefix_queries - self._queries
        hits = self._stats.prefix_hits - self._hits
        self._queries, self._hits = self._stats.prefix_queries, self._stats.prefix_hits
        return round(hits / queries, 4) if queries > 0 else 0.0

    def _schedule(self) -> None:
        # in a context of its own: the line belongs to no request
        self._timer = asyncio.get_running_loop().call_later(
            self._interval_s, self._tick, context=Context()
        )

    def _tick(self) -> None:
        self._timer = None
        was_active, self._is_active = self._is_active, False
        self.write()
        if was_active:
            self._schedule()
