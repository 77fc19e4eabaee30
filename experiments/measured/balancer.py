"""vLLM's own balancing of requests over data-parallel ranks.

A front end counts each rank's waiting and running requests, a waiting one four times, and sends a
request to the lowest count. Ranks tell their counts from time to time; between two tellings the
front end adds what it has sent itself.
"""

from collections.abc import Sequence

from workbench.router import ReplicaView, RoutedRequest, Router

TOLD_EVERY_S = 0.1  # vLLM 0.19: the coordinator publishes counts at most so often
WAITING_WEIGHT = 4


class DataParallelBalancer(Router):
    """Lowest 4 x waiting + running, by counts that are up to a tenth of a second old."""

    def __init__(self) -> None:
        self._told_at = -TOLD_EVERY_S
        self._counts: list[int] = []

    def choose(self, request: RoutedRequest, replicas: Sequence[ReplicaView], now: float) -> int:
        if now >= self._told_at + TOLD_EVERY_S or len(self._counts) != len(replicas):
            self._told_at = now
            self._counts = [WAITING_WEIGHT * r.num_waiting + r.num_running for r in replicas]
        number = min(range(len(replicas)), key=self._counts.__getitem__)
        self._counts[number] += WAITING_WEIGHT
        return number
