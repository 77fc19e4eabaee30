"""The paces that the probes of `SteadyCpus` have told so far.

Knows the probes' files and time.monotonic(). What a pace means for a step is known by
`simulator.calibration.machine_pace`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NEAR_S = 0.5  # one piece of work says little: those before and after count as well
INTERRUPTED = 3.0  # times what is usual: then something came between


class PaceLog:
    """Reads what probes write, as it grows.

    Args:
        files: One a CPU; those that are not there say nothing.
    """

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self._ends = dict.fromkeys(files, 0)
        self._times: list[float] = []
        self._paces: list[float] = []
        self._usual = 0.0

    def during(self, since: float, until: float) -> Array:
        """Seconds that the work took between two times, one value each time.

        Args:
            since, until: time.monotonic().
        """
        self._read()
        places = slice(bisect_left(self._times, since), bisect_right(self._times, until))
        found = np.array(self._paces[places], dtype=np.float64)
        return found[found <= INTERRUPTED * self._usual]

    def near(self, at: float) -> float:
        """Mean seconds of the work around a time; 0: nothing is known of it."""
        found = self.during(at - NEAR_S, at + NEAR_S)
        return float(found.mean()) if len(found) else 0.0

    def so_far(self) -> Array:
        """All seconds told, in the order of time."""
        self._read()
        return np.array(self._paces, dtype=np.float64)

    def _read(self) -> None:
        lines: list[tuple[float, float]] = []
        for file, end in self._ends.items():
            if not file.exists():
                continue
            with file.open("rb") as source:
                source.seek(end)
                # the last line may be half written
                whole = source.read().rpartition(b"\n")[0]
            if whole:
                self._ends[file] = end + len(whole) + 1
                lines += [_sample(line) for line in whole.decode("utf-8").splitlines()]
        if lines:
            rows = sorted([*zip(self._times, self._paces, strict=True), *lines])
            self._times = [at for at, _ in rows]
            self._paces = [pace for _, pace in rows]
            self._usual = float(np.median(self._paces))


def _sample(line: str) -> tuple[float, float]:
    at, nanoseconds = line.split()
    return float(at), 1e-9 * float(nanoseconds)
