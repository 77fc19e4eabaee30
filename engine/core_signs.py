"""The signs of life that a core gives, in memory that its front reads.

Two of them: the process beats as long as it runs at all, and the loop notes when it got on while
there is work for it. Knows times; how long a silence may be, and who acts on it, others know.
"""

import time
from collections.abc import Callable
from typing import Protocol


class Moment(Protocol):
    """A time in memory.

    Attributes:
        value: Wall time, seconds; 0: none.
    """

    value: float


class OwnMoment:
    """A Moment of this process alone."""

    def __init__(self) -> None:
        self.value = 0.0


class SignsOfLife:
    """The signs of one core; the core writes them, its front reads them.

    Args:
        make: Makes a Moment that both of them see.
    """

    def __init__(self, make: Callable[[], Moment] = OwnMoment) -> None:
        self._beat = make()
        self._due_since = make()

    def beat(self) -> None:
        """The process runs."""
        self._beat.value = time.perf_counter()

    def get_on(self) -> None:
        """The loop got on, and there may be more to do."""
        self._due_since.value = time.perf_counter()

    def rest(self) -> None:
        """The loop has nothing to do."""
        self._due_since.value = 0.0

    @property
    def silence_s(self) -> float:
        """Seconds since the last beat; 0 before the first one."""
        return _seconds_since(self._beat)

    @property
    def stall_s(self) -> float:
        """Seconds since the loop last got on; 0 where it has nothing to do."""
        return _seconds_since(self._due_since)


def _seconds_since(moment: Moment) -> float:
    last = moment.value
    return max(time.perf_counter() - last, 0.0) if last else 0.0
