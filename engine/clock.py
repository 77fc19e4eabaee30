"""The time of the real world."""

import time


class WallClock:
    """Seconds since it was made; it never goes back."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self) -> float:
        return time.perf_counter() - self._start

    def to_wall(self, seconds: float) -> float:
        """From this clock's time to CLOCK_MONOTONIC, which all processes read the same."""
        return self._start + seconds

    def from_wall(self, seconds: float) -> float:
        """From CLOCK_MONOTONIC to this clock's time."""
        return seconds - self._start
