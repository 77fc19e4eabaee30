"""A clock that only moves when a test says so, and a server that answers by it."""

import heapq
from collections.abc import Callable
from itertools import count

from experiments.bench.http import Exchange
from workbench.workload.base import WorkloadRequest


class FakeTimers:
    """Calls what is due, in order, as `run` moves the clock."""

    def __init__(self) -> None:
        self.time = 0.0
        self._order = count()
        self._calls: list[tuple[float, int, Callable[[], None]]] = []

    def now(self) -> float:
        return self.time

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (max(when, self.time), next(self._order), call))

    def run(self, until: float = float("inf")) -> None:
        while self._calls and self._calls[0][0] <= until:
            self.time, _, call = heapq.heappop(self._calls)
            call()


class FakeSender:
    """Ends every request so many seconds after it was sent."""

    def __init__(self, timers: FakeTimers, seconds: Callable[[WorkloadRequest], float]) -> None:
        self._timers = timers
        self._seconds = seconds
        self.sent_at: dict[str, float] = {}
        self.num_open = 0
        self.most_open = 0

    def send(self, item: WorkloadRequest, on_end: Callable[[], None]) -> Exchange:
        self.sent_at[item.request_id] = self._timers.now()
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)

        def end() -> None:
            self.num_open -= 1
            on_end()

        self._timers.at(self._timers.now() + self._seconds(item), end)
        return Exchange(item.request_id, b"")
