"""The time of the real world."""

import time


class WallClock:
    """Seconds since it was made; it never goes back."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self) -> float:
        return time.perf_counter() - self._start
