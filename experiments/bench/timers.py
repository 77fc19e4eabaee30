"""The clock of a running event loop, and the fastest loop that is installed.

Times are seconds since the load began.
"""

import asyncio
import time
from collections.abc import Callable

MIN_WAIT_S = 1e-4


class LoopTimers:
    """Calls at given times, from within the running loop; begins now."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.started_at = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self.started_at

    def at(self, when: float, call: Callable[[], None]) -> None:
        # the loop's own clock may be coarse, so the wait is counted from ours
        self._loop.call_later(max(when - self.now(), MIN_WAIT_S), call)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's if it is installed, for it takes less of a CPU that the server needs."""
    try:
        from uvloop import new_event_loop
    except ModuleNotFoundError:
        return asyncio.new_event_loop
    return new_event_loop
