"""A small piece of fixed work: how long it takes tells how fast a CPU is just now."""

import os
import time
from pathlib import Path

import numpy as np

VERSION = 2  # of the work: times of one version say nothing of another's
SIZE = 96  # of the square matrices: they stay in a CPU's own cache
PRODUCTS = 3
PLACES = 1 << 15  # of the list: with its numbers a megabyte
JUMPS = 1500
SUMS = 2500  # of Python's
WARM_UP = 20
STAT = Path("/proc/stat")
STEAL = 7  # the column of a CPU's line, after its name
MOST_STOLEN = 0.9


class FixedWork:
    """Some arithmetic, Python that computes, and Python that follows a list from place to place.

    A neighbour on the other half of a core slows the first two down by more than it does an
    engine's steps, and the last, which waits for memory, by less; together they follow the steps
    better than any of them alone.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._matrix = rng.random((SIZE, SIZE), dtype=np.float32)
        order = rng.permutation(PLACES)
        following = np.empty(PLACES, dtype=np.int64)
        following[order] = np.roll(order, -1)  # one circle through all places
        self._following: list[int] = following.tolist()
        for _ in range(WARM_UP):
            self.nanoseconds()

    def nanoseconds(self) -> int:
        """Do it once; the CPU time that it took."""
        following, place = self._following, 0
        start = time.thread_time_ns()
        product = self._matrix
        for _ in range(PRODUCTS):
            product = product @ self._matrix
        for _ in range(JUMPS):
            place = following[place]
        for number in range(SUMS):
            place += number * number
        return time.thread_time_ns() - start


class StolenTime:
    """Time that a virtual machine's host took from the CPUs that this process may use (Linux).

    CPU time has none of it, and short work seldom meets it.
    """

    def __init__(self) -> None:
        usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        self._cpus = {f"cpu{number}" for number in usable}
        self._at, self._stolen = time.monotonic(), self._seconds()

    def share(self) -> float:
        """The share of the time since this was last asked that was stolen."""
        at, stolen = time.monotonic(), self._seconds()
        passed = (at - self._at) * len(self._cpus)
        share = (stolen - self._stolen) / passed if passed else 0.0
        self._at, self._stolen = at, stolen
        return min(max(share, 0.0), MOST_STOLEN)

    def _seconds(self) -> float:
        if not self._cpus or not STAT.is_file():
            return 0.0
        rows = (line.split() for line in STAT.read_text(encoding="ascii").splitlines())
        ticks = sum(int(row[1 + STEAL]) for row in rows if row[0] in self._cpus)
        return ticks / os.sysconf("SC_CLK_TCK")


class PaceTeller:
    """Writes lines of a log of paces: time.monotonic(), and how many nanoseconds the work took.

    Args:
        path: The log; it is written anew, a line at a time, so that it can be read meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._work, self._stolen = FixedWork(), StolenTime()
        # open as long as the process lives
        self._file = path.open("w", buffering=1, encoding="ascii")

    def tell(self) -> None:
        """Do the work once; what the host took since the last time lengthens it in proportion."""
        took = self._work.nanoseconds() / (1.0 - self._stolen.share())
        self._file.write(f"{time.monotonic():.3f} {took:.0f}\n")
