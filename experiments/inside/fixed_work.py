"""A small piece of fixed work: how long it takes tells how fast a CPU is just now."""

import time

import numpy as np

SIZE = 96  # of the square matrices: they stay in a CPU's own cache
PRODUCTS = 3
PLACES = 1 << 15  # of the list: with its numbers a megabyte
JUMPS = 3000
WARM_UP = 20


class FixedWork:
    """Some arithmetic, and Python that follows a list from place to place.

    The second is what a neighbour on the other half of a core slows down most, as it does an
    engine.
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
        return time.thread_time_ns() - start


def line_of(at: float, nanoseconds: int) -> str:
    """A line of a log of paces: time.monotonic(), and how long the work took then."""
    return f"{at:.3f} {nanoseconds}\n"
