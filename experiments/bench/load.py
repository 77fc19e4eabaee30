"""Sends a workload's requests at their times and waits for all answers.

Knows when a request is due, how many may be open, and what the end of one sets off. Knows neither
connections nor prompts: both are behind `Sender`, the clock behind `Timers`.

A request that is due while all places are taken waits here. Its latencies count from the time at
which it was due, so a server that falls behind does not hide it by holding the client back
(coordinated omission). Where no times are given ("as fast as possible"), a request is due when
there is a place for it.
"""

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Protocol

from experiments.bench.http import Exchange
from workbench.workload.base import Workload, WorkloadRequest

Progress = Callable[[int, int, float], None]


class Timers(Protocol):
    """A clock that can call."""

    def now(self) -> float:
        """Seconds since the load began."""
        ...

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call once, at this time or soon after."""
        ...


class Sender(Protocol):
    """Turns a request of a workload into one for a server."""

    def send(self, item: WorkloadRequest, on_end: Callable[[], None]) -> Exchange:
        """Send it now; `on_end` is called once, later, whatever becomes of it."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was sent: when it was due [s since the load began], and the exchange."""

    item: WorkloadRequest
    due_at: float
    exchange: Exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """How much is sent.

    Attributes:
        max_concurrency: Open requests at most; None: any number.
        num_requests: Requests at most; None: those of the workload.
        duration_s: None is sent later than this; None: no limit.
        is_as_fast_as_possible: A request is due when there is a place for it.
    """

    max_concurrency: int | None = None
    num_requests: int | None = None
    duration_s: float | None = None
    is_as_fast_as_possible: bool = False


class LoadGenerator:
    """One load, to be run once.

    Args:
        workload: The requests.
        sender: Sends them.
        timers: The clock, at 0 when the load begins.
        limits: See there.
        on_over: Called once, when nothing is left to send or to wait for.
        progress: Called after each end with (ended, requests in all, seconds).

    Attributes:
        sent: In the order of sending.
        num_unsent: Requests that were due before the load was stopped and had no place.
    """

    def __init__(
        self,
        workload: Workload,
        sender: Sender,
        timers: Timers,
        limits: LoadLimits,
        on_over: Callable[[], None],
        progress: Progress | None = None,
    ) -> None:
        self.sent: list[Sent] = []
        self.num_unsent = 0
        self._workload = workload
        self._sender = sender
        self._timers = timers
        self._limits = limits
        self._on_over = on_over
        self._progress = progress
        # by time, then by order of becoming known; the flag: it is one of those that come anyway
        self._upcoming: list[tuple[float, int, bool, WorkloadRequest]] = []
        self._initial: Iterator[WorkloadRequest] = iter(())
        self._order = count()
        self._num_open = 0
        self._is_stopped = False
        self._is_over = False
        self._wake_at = math.inf

    def start(self) -> None:
        """Begin; `on_over` is called at once if there is nothing to do."""
        self._initial = iter(self._workload.initial())
        self._expect_initial()
        self._go_on()

    def stop(self) -> None:
        """Send nothing more; what is open goes on."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if not self._limits.is_as_fast_as_possible:
            end = self._timers.now()
            if self._limits.duration_s is not None:
                end = min(end, self._limits.duration_s)  # a timer wakes a little later
            self.num_unsent = sum(due_at < end for due_at, *_ in self._upcoming)
            self.num_unsent += sum(item.arrival_time < end for item in self._initial)
        self._upcoming.clear()
        self._go_on()

    @property
    def num_requests(self) -> int:
        """As many as there will be at most."""
        most = self._workload.num_requests
        return most if self._limits.num_requests is None else min(most, self._limits.num_requests)

    def _expect(self, item: WorkloadRequest, is_initial: bool) -> None:
        entry = (item.arrival_time, next(self._order), is_initial, item)
        heapq.heappush(self._upcoming, entry)

    def _expect_initial(self) -> None:
        """The next of those that come anyway; one at a time, for there may be many."""
        item = next(self._initial, None)
        if item is not None:
            self._expect(item, is_initial=True)

    def _go_on(self) -> None:
        """Send what is due and has a place; wait for the rest."""
        now = self._timers.now()
        while self._has_place and (found := self._take_due(now)) is not None:
            due_at, item = found
            self._num_open += 1
            exchange = self._sender.send(item, partial(self._ended, item))
            self.sent.append(Sent(item, due_at, exchange))
        if not self._upcoming and not self._num_open and not self._is_over:
            self._is_over = True
            self._on_over()
        if self._upcoming and self._has_place:
            self._wake(self._upcoming[0][0])

    @property
    def _has_place(self) -> bool:
        most = self._limits.max_concurrency
        return most is None or self._num_open < most

    def _take_due(self, now: float) -> tuple[float, WorkloadRequest] | None:
        """The next request whose time has come, and its time; None if there is none yet."""
        limits = self._limits
        if self._upcoming and len(self.sent) == self.num_requests:
            self._is_stopped = True
            self._upcoming.clear()
        if limits.duration_s is not None and now > limits.duration_s:
            self.stop()
        if not self._upcoming or self._upcoming[0][0] > now:
            return None
        due_at, _, is_initial, item = heapq.heappop(self._upcoming)
        if is_initial:
            self._expect_initial()
        return (now if limits.is_as_fast_as_possible else due_at), item

    def _wake(self, when: float) -> None:
        if when < self._wake_at:
            self._wake_at = when
            self._timers.at(when, self._woken)

    def _woken(self) -> None:
        self._wake_at = math.inf
        self._go_on()

    def _ended(self, item: WorkloadRequest) -> None:
        now = self._timers.now()
        self._num_open -= 1
        if not self._is_stopped:
            for following in self._workload.after_finish(item.request_id, now):
                self._expect(following, is_initial=False)
        if self._progress is not None:
            self._progress(len(self.sent) - self._num_open, self.num_requests, now)
        self._go_on()
