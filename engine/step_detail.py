"""Collects what one step did to every request and every KV block, while somebody watches.

The core calls it after each step. It tells what is different from the last step that was told, at
most so often and for at most such a share of the time, so that a core that is watched is hardly
slower; one that nobody watches spends nothing. It changes nothing and decides nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from engine.step_messages import (
    MOST_WAITING,
    PREEMPTED,
    BlockMap,
    RequestFacts,
    Row,
    StepDetail,
    TableChange,
)
from workbench.kv_cache.block_pool import NULL_BLOCK
from workbench.outputs import SchedulerOutput
from workbench.request import Request, RequestStatus
from workbench.scheduler.scheduler import Scheduler

MOST_IN_FLIGHT = 64  # steps after its end in which a request may still have a row
CHANGED_SHARE = 5  # a map of which more than this part of it has changed is told as a whole


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """How much a viewer may cost.

    Attributes:
        details_per_s: Most details told a second of real time.
        maps_per_s: Most block maps a second.
        time_share: Most of the core's processor time, for rows and for maps each; 0 to 1.
    """

    details_per_s: float = 120.0
    maps_per_s: float = 20.0
    time_share: float = 0.04


EVERY_STEP = WatchLimits(float("inf"), float("inf"), float("inf"))


@dataclass(slots=True)
class _Told:
    """A request as it was told last."""

    key: int
    request: Request
    tables: Sequence[list[int]] = ()
    lengths: list[int] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    num_preemptions: int = 0
    is_running: bool = False
    ended_at: int | None = None


@dataclass(slots=True)
class _News:
    """What a detail will hold of requests and tables."""

    requests: list[RequestFacts] = field(default_factory=list)
    admitted: list[tuple[int, int, int]] = field(default_factory=list)
    tables: list[TableChange] = field(default_factory=list)
    left: list[tuple[int, str]] = field(default_factory=list)


class StepWatcher:
    """Tells steps while somebody watches.

    Args:
        limits: How much it may cost.
        clock: Seconds of real time, also where the core's own time is simulated.
        cost_clock: Seconds of processor time, which does not count waiting for a processor.

    Attributes:
        is_watched: Whether anybody watches.
    """

    def __init__(
        self,
        limits: WatchLimits | None = None,
        clock: Callable[[], float] = time.perf_counter,
        cost_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._limits = limits or WatchLimits()
        self._clock = clock
        self._cost_clock = cost_clock
        self.watch(False)

    def watch(self, is_watched: bool) -> None:
        """Begin or end; to begin once more while it is watched tells everything anew."""
        self.is_watched = is_watched
        self._is_first = True
        self._num_keys = 0
        self._told: dict[Request, _Told] = {}
        self._computed: dict[int, int] = {}  # of the rows told last, by key
        self._step = 0
        self._map = np.zeros(0, np.uint8)
        self._due = self._map_due = 0.0

    def detail(self, scheduler: Scheduler, scheduler_output: SchedulerOutput) -> StepDetail | None:
        """Tell a step whose results have just been taken in, if somebody watches and it is time.

        What happens in a step that is not told is in the next detail; a step after which nothing
        runs is always told.
        """
        if not self.is_watched:
            return None
        now, limits, news = self._clock(), self._limits, _News()
        if now < self._due and scheduler.running:
            return None
        began = self._cost_clock()
        self._look_at_running(scheduler.running, news)
        rows, gone = self._changed_rows(scheduler_output, news)
        self._look_for_leavers(news)
        told = self._cost_clock()
        self._due = _next(self._due, 1.0 / limits.details_per_s, now, told - began, limits)
        waiting = block_map = None
        if now >= self._map_due or not scheduler.running:
            waiting = [self._know(r, news).key for r in islice(scheduler.waiting, MOST_WAITING)]
            block_map = self._changed_map(scheduler.kv_cache_manager.block_states())
            cost = self._cost_clock() - told
            self._map_due = _next(self._map_due, 1.0 / limits.maps_per_s, now, cost, limits)
        is_first, self._is_first = self._is_first, False
        return StepDetail(
            scheduler_output.step,
            is_first,
            news.requests,
            news.admitted,
            rows,
            gone,
            news.tables,
            news.left,
            waiting,
            block_map,
        )

    def _know(self, request: Request, news: _News) -> _Told:
        told = self._told.get(request)
        if told is None:
            key = self._num_keys
            self._num_keys += 1
            told = self._told[request] = _Told(key, request)
            news.requests.append(
                RequestFacts(
                    key,
                    request.request_id,
                    request.num_prompt_tokens,
                    request.max_tokens,
                    request.priority,
                )
            )
        return told

    def _look_at_running(self, running: Sequence[Request], news: _News) -> None:
        for request in running:
            told = self._know(request, news)
            if told.is_running and told.num_preemptions != request.num_preemptions:
                news.left.append((told.key, PREEMPTED))  # and came back since
                told.is_running = False
            if not told.is_running:
                told.is_running = True
                told.num_preemptions = request.num_preemptions
                entry = (told.key, request.num_cached_tokens, request.num_preemptions)
                news.admitted.append(entry)
            self._look_at_tables(told, request.block_ids, news)

    @staticmethod
    def _look_at_tables(told: _Told, tables: Sequence[list[int]], news: _News) -> None:
        if told.tables is not tables:
            told.tables = tables
            told.lengths = [0] * len(tables)
            told.skipped = [0] * len(tables)
        for group, table in enumerate(tables):
            start, skipped = told.lengths[group], told.skipped[group]
            while skipped < len(table) and table[skipped] == NULL_BLOCK:
                skipped += 1
            if len(table) != start or skipped != told.skipped[group]:
                change = TableChange(told.key, group, skipped, start, table[start:])
                news.tables.append(change)
                told.lengths[group], told.skipped[group] = len(table), skipped

    def _look_for_leavers(self, news: _News) -> None:
        for told in list(self._told.values()):
            request = told.request
            if request.status is RequestStatus.RUNNING:
                continue
            if told.ended_at is not None:
                if self._step - told.ended_at > MOST_IN_FLIGHT:
                    del self._told[request]
            elif told.is_running or request.is_finished:
                news.left.append((told.key, request.finish_reason or PREEMPTED))
                told.is_running, told.tables = False, ()
                told.ended_at = self._step if request.is_finished else None

    def _changed_rows(
        self, scheduler_output: SchedulerOutput, news: _News
    ) -> tuple[list[Row], list[int]]:
        batch, drafts_of = scheduler_output.rows, scheduler_output.scheduled_spec_decode_tokens
        num_steps = scheduler_output.step - self._step
        before, computed_of = self._computed, dict[int, int]()
        rows = []
        for request in batch.requests:
            key = self._know(request, news).key
            computed = max(request.num_computed_tokens - request.num_in_flight_tokens, 0)
            computed_of[key] = computed
            num_tokens = batch.num_tokens_of.get(request, 1)
            drafts = drafts_of.get(request.request_id, ())
            num_known = num_tokens - len(drafts)
            # Drafts come behind a whole prompt, and some may have been taken back by now.
            is_prompt = not drafts and 0 <= computed - num_tokens < request.num_prompt_tokens
            num_prefill = num_known if num_known > 1 or is_prompt else 0
            is_expected = num_tokens == 1 and not num_prefill and key in before
            if not is_expected or before[key] + num_steps != computed:
                rows.append(Row(key, num_tokens, num_prefill, computed))
        self._computed, self._step = computed_of, scheduler_output.step
        return rows, [key for key in before if key not in computed_of]

    def _changed_map(self, states: bytes) -> BlockMap | None:
        """The map as it differs from the one told last."""
        before, now = self._map, np.frombuffer(states, np.uint8)
        self._map = now
        if len(before) != len(now):
            return BlockMap(states)
        places = np.flatnonzero(before != now)
        if not len(places):
            return None
        if len(places) * CHANGED_SHARE > len(now):
            return BlockMap(states)
        return BlockMap(now[places].tobytes(), places.astype("<u4").tobytes())


def _next(due: float, interval: float, now: float, cost: float, limits: WatchLimits) -> float:
    """When the next detail is due. A step that comes a little late does not delay all others."""
    return max(due + interval, now + 0.5 * interval, now + cost / limits.time_share)
