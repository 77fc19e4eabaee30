"""Whether anybody else used the machine while something was measured.

Knows the kernel's counters of CPU time (Linux). Elsewhere it sees nothing and says so with None.
What the counters do not show, a neighbour of a virtual machine, is known by `SteadyCpus`.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

STAT = Path("/proc/stat")
IDLE_FIELDS = (3, 4)  # idle, iowait


class Pace(Protocol):
    """What is known of the CPUs' pace."""

    def helpers_cpu_s(self) -> float:
        """CPU seconds of those who watch."""
        ...

    def slowed(self, since: float) -> float | None:
        """How much longer than at the best a fixed piece of work took since time.monotonic()."""
        ...


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What a measurement had to suffer from.

    Attributes:
        others: CPUs that other processes used, on average; None: not known.
        slowed: How much slower the CPUs were than at their best, as a part; None: not known.
    """

    others: float | None = None
    slowed: float | None = None

    def is_within(self, disturbed: float, slowed: float) -> bool:
        """Whether both are at most so much; what is not known does not count."""
        return (self.others or 0.0) <= disturbed and (self.slowed or 0.0) <= slowed

    @property
    def harm(self) -> float:
        """By which of several measurements the best is chosen."""
        return (self.others or 0.0) + (self.slowed or 0.0)

    def told(self) -> dict[str, Any]:
        """As a file says it."""
        return {"others": self.others, "slowed": self.slowed}


class MachineWatch:
    """Counts the CPU time of others from the moment it is made.

    Args:
        pace: Who knows how fast the CPUs are; None: nobody.
    """

    def __init__(self, pace: Pace | None = None) -> None:
        self._pace, self._since = pace, time.monotonic()
        self._wall, self._own, self._busy = self._now()

    def seen(self) -> Disturbance:
        """What has been seen since then."""
        slowed = self._pace.slowed(self._since) if self._pace is not None else None
        return Disturbance(self.others(), slowed)

    def others(self) -> float | None:
        """CPUs that others kept busy since then, on average: 0 is a machine of one's own."""
        wall, own, busy = self._now()
        if busy is None or self._busy is None or wall <= self._wall:
            return None
        used = (busy - self._busy) - (own - self._own)
        return max(used, 0.0) / (wall - self._wall)

    def _now(self) -> tuple[float, float, float | None]:
        """(seconds, CPU seconds of this process and who watches, those of the whole machine)."""
        busy = None
        if STAT.is_file():
            counters = [int(n) for n in STAT.read_text().split("\n", 1)[0].split()[1:9]]
            ticks = sum(n for i, n in enumerate(counters) if i not in IDLE_FIELDS)
            busy = ticks / os.sysconf("SC_CLK_TCK")
        helpers = self._pace.helpers_cpu_s() if self._pace is not None else 0.0
        return time.perf_counter(), time.process_time() + helpers, busy
