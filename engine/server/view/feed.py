"""What viewers are told of a server, tick by tick: its steps, and what its clients waited for.

It asks the core for details while there is a viewer, and no longer. Nobody is waited for: a viewer
who cannot follow loses ticks, and is told everything anew when there is room. Knows no HTTP.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import msgspec

from engine.async_llm import AsyncLLM
from engine.core_messages import StepStats
from engine.errors import EngineDeadError, InputError
from engine.request_listener import RequestListener, RequestRecord
from engine.server.view.latencies import Latencies
from engine.step_messages import StepDetail
from workbench.sampling_params import SamplingParams

TICK_S = 0.05
IDLE_TICK_S = 0.5  # an idle server is told of so often
RETELL_S = 1.0  # everything is told anew at most so often
MOST_BEHIND = 40  # ticks that may wait for a viewer
MOST_BARE_STEPS = 4  # steps of a tick none of which has details

logger = logging.getLogger(__name__)

Step = tuple[tuple[float, ...], StepDetail | None]
"""A step in numbers, and what it did to every request."""


class Viewer:
    """One who watches.

    Attributes:
        is_behind: It lacks what came before; it gets no details until all is told anew.
        is_sent_away: Nothing more will come.
    """

    def __init__(self) -> None:
        self.is_behind = True
        self.is_sent_away = False
        self._waiting: deque[bytes] = deque()
        self._has_come = asyncio.Event()

    def give(self, event: bytes) -> None:
        """Something to send; if too much waits, it is dropped."""
        if len(self._waiting) >= MOST_BEHIND:
            self._waiting.clear()
            self.is_behind = True
            return
        self._waiting.append(event)
        self._has_come.set()

    def send_away(self) -> None:
        """End its stream."""
        self.is_sent_away = True
        self._has_come.set()

    async def take(self) -> bytes:
        """All that waits, once something does."""
        await self._has_come.wait()
        self._has_come.clear()
        events = b"".join(self._waiting)
        self._waiting.clear()
        return events


class ViewFeed(RequestListener):
    """Tells all viewers of one server.

    Args:
        llm: The engine.
        facts: Of the server, for the page.
        is_over: Whether the server ends and has no work left, so that viewers must go.
    """

    def __init__(
        self, llm: AsyncLLM, facts: Mapping[str, Any], is_over: Callable[[], bool]
    ) -> None:
        self._llm = llm
        self._facts = facts
        self._is_over = is_over
        self._origin = time.perf_counter()
        self._viewers: set[Viewer] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._asked: set[asyncio.Task[None]] = set()
        self._num_cores = 0
        self._latencies = Latencies(self._origin)
        self._steps: list[Step] = []
        self._totals = [0, 0, 0]  # steps, prompt tokens, other tokens
        self._retold_at = 0.0
        self._ticked_at = 0.0

    @property
    def num_viewers(self) -> int:
        """Viewers now."""
        return len(self._viewers)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events for one viewer, until it is closed."""
        viewer = Viewer()
        self._viewers.add(viewer)
        try:
            yield self._hello()
            if self._ticking is None:
                self._latencies.clear()
                self._ticking = asyncio.create_task(self._tick_on())
            self._watch(True)
            while not viewer.is_sent_away:
                yield await viewer.take()
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._stop()

    def _stop(self) -> None:
        ticking, self._ticking = self._ticking, None
        if ticking is not None:
            ticking.cancel()
        self._steps.clear()
        self._latencies.clear()
        self._watch(False)

    def _watch(self, is_watched: bool) -> None:
        """Ask the core to begin or to end; a core that is busy answers later."""
        self._retold_at = time.perf_counter()
        asked = asyncio.create_task(self._ask(is_watched))
        self._asked.add(asked)
        asked.add_done_callback(self._asked.discard)

    async def _ask(self, is_watched: bool) -> None:
        try:
            await self._llm.call("watch", is_watched)
        except (EngineDeadError, InputError) as error:
            logger.debug("nobody to watch: %s", error)

    def _hello(self) -> bytes:
        info = self._llm.info
        facts = {
            "instance": f"{info.pid} {self._origin} {self._num_cores}",
            "num_kv_blocks": info.num_kv_blocks,
            "block_size": info.block_size,
            "max_num_seqs": info.max_num_seqs,
            "max_num_batched_tokens": info.max_num_batched_tokens,
        }
        return event("hello", {**self._facts, **facts})

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = time.perf_counter()
            if self._is_over():
                for viewer in self._viewers:
                    viewer.send_away()
            if any(viewer.is_behind for viewer in self._viewers) and (
                now - self._retold_at > RETELL_S
            ):
                self._watch(True)
            if self._steps or now - self._ticked_at >= IDLE_TICK_S:
                self._tick(now)

    def _tick(self, now: float) -> None:
        """Give every viewer what has happened since the last tick."""
        self._ticked_at = now
        steps, self._steps = self._steps, []
        told = self._latencies.take()
        told |= {"t": now - self._origin, "totals": self._totals, "steps": []}
        bare = event("tick", told)
        first = next((i for i, (_, d) in enumerate(steps) if d is not None and d.is_first), None)
        whole = event("tick", told | {"steps": _thinned(steps)})
        for viewer in self._viewers:
            if viewer.is_behind and first is not None:
                viewer.is_behind = False
                viewer.give(event("tick", told | {"steps": _thinned(steps[first:])}))
            else:
                viewer.give(bare if viewer.is_behind else whole)

    def on_step(self, stats: StepStats, detail: StepDetail | None) -> None:
        if not self._viewers:
            return
        self._totals[0] += 1
        self._totals[1] += stats.num_prefill_tokens
        self._totals[2] += stats.num_decode_tokens
        self._steps.append((self._plain(stats), detail))
        if len(self._steps) > 100_000:  # the loop has not come to tick for very long
            self._steps.clear()
            for viewer in self._viewers:
                viewer.is_behind = True

    def _plain(self, stats: StepStats) -> tuple[float, ...]:
        return (
            stats.step,
            round(stats.start - self._origin, 6),
            round(stats.duration_s, 7),
            stats.num_running,
            stats.num_waiting,
            stats.num_used_blocks,
            stats.num_scheduled_tokens,
            stats.num_prefill_tokens,
            stats.num_decode_tokens,
            len(stats.preempted),
            stats.prefix_queries,
            stats.prefix_hits,
        )

    def on_arrival(self, request_id: str, num_prompt_tokens: int, params: SamplingParams) -> None:
        if self._viewers:
            self._latencies.arrive(request_id, time.perf_counter())

    def on_tokens(self, request_id: str, num_new: int, now: float, is_first: bool) -> None:
        if self._viewers:
            self._latencies.tokens(request_id, num_new, now, is_first)

    def on_finished(self, record: RequestRecord) -> None:
        if self._viewers:
            first, arrival = record.first_token_time, record.arrival_time
            num_tokens = record.num_output_tokens
            self._latencies.end(record.request_id, num_tokens, first, arrival, record.finish_time)

    def on_core_dead(self, reason: str) -> None:
        self._tell_all("core", {"alive": False, "text": f"the engine has ended: {reason}"})

    def on_core_ready(self) -> None:
        self._num_cores += 1
        self._steps.clear()
        self._latencies.clear()
        for viewer in self._viewers:
            viewer.is_behind = True
            viewer.give(self._hello())
        self._retold_at = 0.0  # the new core is asked with the next tick

    def _tell_all(self, kind: str, content: Mapping[str, Any]) -> None:
        told = event(kind, content)
        for viewer in self._viewers:
            viewer.give(told)


def event(kind: str, content: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(content) + b"\n\n"


def _thinned(steps: list[Step]) -> list[Step]:
    """The steps with details; if there are none, the last ones."""
    told = [step for step in steps if step[1] is not None]
    return told or steps[-MOST_BARE_STEPS:]
