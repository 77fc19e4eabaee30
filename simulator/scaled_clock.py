"""Simulated time that passes in proportion to real time.

Knows how the two clocks go together, how to wait, and what happens when whoever should start the
next step comes late. It knows no step and no cost.

Steps follow each other on the simulated clock: after a wait the time is what was waited for, not
what the wall says, so that a wait that ends a little late is made good by the next one. Who is
late by more than a few steps has lost that time, as a device has that stands still.
"""

import time
from collections.abc import Callable
from typing import Any

from simulator.bounds import check_number
from workbench.errors import ConfigError

SLOWEST, FASTEST = 0.01, 1000.0
# a sleep ends that much after its time on Linux, about, and a shorter one is not worth it
TIMER_S = 60e-6
# lateness that following steps may make good: in steps of the last one's length, and at most
CATCH_UP_STEPS, CATCH_UP_S = 8.0, 0.1


class WaitedFor:
    """A value that is there at a time.

    Args:
        clock: Waits.
        at: Simulated seconds.
        value: What `result` returns.
    """

    __slots__ = ("_at", "_clock", "_value")

    def __init__(self, clock: "ScaledClock", at: float, value: Any) -> None:
        self._clock, self._at, self._value = clock, at, value

    def result(self) -> Any:
        """The value; waits for its time."""
        self._clock.wait_until(self._at)
        return self._value


class ScaledClock:
    """Simulated seconds since it was made.

    Args:
        speed: Simulated seconds a second of the wall, from 0.01 to 1000.
        wall: Seconds that never go back.
        sleep: Waits for so many of them.

    Attributes:
        speed: As given.
        lost_s: Simulated seconds in which work was there and nobody had started it, as the host
            was late.
    """

    def __init__(
        self,
        speed: float = 1.0,
        wall: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        check_number("speed", speed)
        if not SLOWEST <= speed <= FASTEST:
            raise ConfigError(f"speed={speed:g} must be from {SLOWEST:g} to {FASTEST:g}")
        self.speed = float(speed)
        self.lost_s = 0.0
        self._wall, self._sleep = wall, sleep
        self._start = wall()
        self._now = 0.0
        self._patience = 0.0
        self._is_busy: Callable[[], bool] = lambda: False
        self._has_started = False

    def watch(self, is_busy: Callable[[], bool]) -> None:
        """Be told whether there is work: while there is none, the time is that of the wall."""
        self._is_busy = is_busy

    def __call__(self) -> float:
        """The time: while there is work, that at which the last step ended; it never goes back."""
        late = self.from_wall(self._wall()) - self._now
        if not self._has_started or not self._is_busy():
            self._has_started = False
            self._now += max(late, 0.0)
        elif late > self._patience:
            self.lost_s += late - self._patience
            self._now += late - self._patience
        return self._now

    @property
    def now(self) -> float:
        """The same."""
        return self()

    def to_wall(self, at: float) -> float:
        """Seconds on the wall's clock at a simulated time."""
        return self._start + at / self.speed

    def from_wall(self, at: float) -> float:
        """Simulated seconds at a time of the wall's clock."""
        return (at - self._start) * self.speed

    def timeout_at(self, at: float, value: Any = None) -> WaitedFor:
        """A value that is there at the time `at`, simulated seconds: the end of a step."""
        self._has_started = True
        return WaitedFor(self, at, value)

    def wait_until(self, at: float) -> None:
        """Sleep until the time `at`, simulated seconds."""
        lasts = max(at - self._now, 0.0)
        longest = min(CATCH_UP_STEPS * lasts, CATCH_UP_S * self.speed)
        self._patience = max(longest, self._patience / 2)
        due = self.to_wall(at)
        while (left := due - self._wall()) > TIMER_S:
            self._sleep(max(left - TIMER_S, TIMER_S / 2))
        self._now = max(self._now, at)
