"""Whether anybody else used the machine while something was measured.

Knows the kernel's counters of CPU time (Linux). Elsewhere it sees nothing and says so with None.
"""

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
LOOK_S = 0.5
IDLE_FIELDS = (3, 4)  # idle, iowait


class MachineWatch:
    """Counts the CPU time of others from the moment it is made."""

    def __init__(self) -> None:
        self._wall, self._own, self._busy = _now()

    def others(self) -> float | None:
        """CPUs that others kept busy since then, on average: 0 is a machine of one's own."""
        wall, own, busy = _now()
        if busy is None or self._busy is None or wall <= self._wall:
            return None
        used = (busy - self._busy) - (own - self._own)
        return max(used, 0.0) / (wall - self._wall)


def wait_for_quiet(limit: float, patience_s: float) -> float | None:
    """Wait until others use at most `limit` CPUs; what they used when last looked at, if at all.

    Args:
        limit: CPUs.
        patience_s: After as many seconds of waiting it is taken as it is.
    """
    end = time.perf_counter() + patience_s
    if limit >= (os.cpu_count() or 1):
        return None
    while True:
        watch = MachineWatch()
        time.sleep(LOOK_S)
        others = watch.others()
        if others is None or others <= limit or time.perf_counter() > end:
            return others


def _now() -> tuple[float, float, float | None]:
    """(seconds, CPU seconds of this process, CPU seconds of the whole machine)."""
    busy = None
    if STAT.is_file():
        counters = [int(n) for n in STAT.read_text().split("\n", 1)[0].split()[1:9]]
        ticks = sum(n for i, n in enumerate(counters) if i not in IDLE_FIELDS)
        busy = ticks / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), time.process_time(), busy
