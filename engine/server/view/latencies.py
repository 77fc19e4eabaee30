"""What clients waited for since the last look: first tokens, gaps between tokens, ends.

Knows requests by their ids, and times in seconds; knows neither steps nor viewers.
"""

from collections.abc import Sequence
from typing import Any

MOST_GAPS = 20_000  # gaps that are kept between two looks
MOST_ENDED = 200


class Latencies:
    """Gathers until it is taken.

    Args:
        origin: The time that is called 0.
    """

    def __init__(self, origin: float) -> None:
        self._origin = origin
        self.clear()

    def clear(self) -> None:
        """Forget all requests."""
        self._arrivals: dict[str, float] = {}
        self._last_tokens: dict[str, float] = {}
        self._begin()

    def _begin(self) -> None:
        self._first_tokens: list[tuple[float, float]] = []
        self._gaps: list[float] = []
        self._ended: list[dict[str, Any]] = []

    def arrive(self, request_id: str, now: float) -> None:
        """A request has come."""
        self._arrivals[request_id] = now

    def tokens(self, request_id: str, num_new: int, now: float, is_first: bool) -> None:
        """A request has got tokens."""
        last = self._last_tokens.get(request_id)
        self._last_tokens[request_id] = now
        if is_first:
            if (arrival := self._arrivals.get(request_id)) is not None:
                self._first_tokens.append((now - self._origin, now - arrival))
        elif last is not None and now > last and len(self._gaps) < MOST_GAPS:
            # Several answers of one request get theirs at the same time, and make one gap.
            self._gaps.append((now - last) / num_new)

    def end(
        self,
        request_id: str,
        num_tokens: int,
        first_token: float | None,
        arrival: float,
        now: float,
    ) -> None:
        """A request has ended, with so many tokens in its answer."""
        self._arrivals.pop(request_id, None)
        self._last_tokens.pop(request_id, None)
        if len(self._ended) < MOST_ENDED:
            waited = None if first_token is None else first_token - arrival
            told = {"id": request_id, "tokens": num_tokens, "ttft": waited, "e2e": now - arrival}
            self._ended.append(told)

    def take(self) -> dict[str, Any]:
        """What has come since the last time, as the page wants it."""
        told = {"ttft": self._first_tokens, "itl": gap_summary(self._gaps), "ended": self._ended}
        self._begin()
        return told


def gap_summary(gaps: Sequence[float]) -> tuple[int, float, float] | None:
    """(how many, median, 99th percentile, both by nearest rank); None of none."""
    if not gaps:
        return None
    ordered = sorted(gaps)
    num_gaps = len(ordered)
    return num_gaps, ordered[(num_gaps - 1) // 2], ordered[-(-99 * num_gaps // 100) - 1]
