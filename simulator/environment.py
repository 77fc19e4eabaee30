"""Simulated time with events at exact times.

simpy's timeouts are relative: `now + (end - now)` is not always `end` in floating point. A step run
on its own and one run in a row must end at the same bit, so ends are scheduled absolutely.
"""

from heapq import heappush
from typing import Any

import simpy
from simpy.events import NORMAL


class SimulationEnvironment(simpy.Environment):
    """An Environment that can wait until a time."""

    def timeout_at(self, at: float, value: Any = None) -> simpy.Event:
        """An event that happens at the time `at` (seconds, not before now) with this value."""
        event = simpy.Event(self)
        self.succeed_at(event, at, value)
        return event

    def succeed_at(self, event: simpy.Event, at: float, value: Any = None) -> None:
        """Make an event that waits for its time happen at `at` (seconds, not before now)."""
        event._ok = True
        event._value = value
        heappush(self._queue, (max(at, self._now), NORMAL, next(self._eid), event))
