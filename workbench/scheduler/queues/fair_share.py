"""Fair share between clients: the queue that serves whoever has been given least.

It knows what every client was given; it does not know what a client is (user, tenant, key) nor what
its requests will still cost.
"""

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush, heapreplace
from typing import Any

from workbench.errors import ConfigError
from workbench.request import Request
from workbench.scheduler.request_queue import FCFSQueue, RequestQueue


class FairShareQueue(RequestQueue):
    """Virtual token counter (VTC; Sheng et al., "Fairness in Serving LLMs", OSDI 2024).

    Each client has a counter of weighted tokens served. The client with the smallest one is next,
    first come first served within it. A client that had nothing waiting has its counter lifted to
    the smallest one among the waiting clients, so nobody saves up credit while away. Two clients
    that always have requests waiting differ by a bounded amount of service, whatever they send.

    Args:
        prompt_weight: What a prompt token counts.
        output_weight: What an output token counts.
        client_weights: Share of each client; 1 where it is not named. Twice the weight, twice
            the service.

    Raises:
        ConfigError: a weight out of range.
    """

    counts_service = True

    def __init__(
        self,
        prompt_weight: float = 1.0,
        output_weight: float = 2.0,
        client_weights: Mapping[str, float] | None = None,
    ) -> None:
        if prompt_weight < 0 or output_weight < 0:
            raise ConfigError(
                f"prompt_weight={prompt_weight} and output_weight={output_weight} must be at "
                "least 0: the paper uses 1 and 2"
            )
        self._prompt_weight = prompt_weight
        self._output_weight = output_weight
        self._client_weights = dict(client_weights or {})
        for client, weight in self._client_weights.items():
            if not weight > 0:
                raise ConfigError(f"client_weights[{client!r}]={weight} must be above 0")
        self._counters: dict[str, float] = {}
        self._waiting: dict[str, FCFSQueue] = {}  # of the clients that have requests waiting
        self._num_waiting = 0
        self._last_to_leave: str | None = None
        # One entry a client, (counter when pushed, first come, client). Counters only grow, so an
        # entry is a lower bound and is brought up to date when it reaches the top.
        self._heap: list[tuple[float, int, str]] = []
        self._in_heap: set[str] = set()
        self._rank: dict[str, int] = {}

    def add(self, request: Request, now: float) -> None:
        if request.client_id not in self._waiting:
            self._lift(request.client_id)
        self._queue_of(request.client_id).add(request, now)
        self._num_waiting += 1

    def prepend(self, request: Request) -> None:
        self._queue_of(request.client_id).prepend(request)
        self._num_waiting += 1

    def peek(self) -> Request:
        return self._waiting[self._next_client()].peek()

    def pop(self) -> Request:
        request = self.peek()
        self.remove(request)
        return request

    def remove(self, request: Request) -> None:
        client = request.client_id
        queue = self._waiting[client]
        queue.remove(request)
        self._num_waiting -= 1
        if not queue:
            del self._waiting[client]
            self._last_to_leave = client

    def on_tokens(self, request: Request, num_prompt_tokens: int, num_output_tokens: int) -> None:
        service = self._prompt_weight * num_prompt_tokens + self._output_weight * num_output_tokens
        client = request.client_id
        self._counters[client] += service / self._client_weights.get(client, 1.0)

    def counter(self, client: str) -> float:
        """Weighted tokens counted for a client; 0 for one never seen."""
        return self._counters.get(client, 0.0)

    def key(self, request: Request) -> tuple[Any, ...]:
        return (self.counter(request.client_id), request.arrival_time, request.arrival_index)

    def _lift(self, client: str) -> None:
        floor = 0.0
        if self._waiting:
            floor = self._counters[self._next_client()]
        elif self._last_to_leave is not None:
            floor = self._counters[self._last_to_leave]
        self._counters[client] = max(self.counter(client), floor)

    def _queue_of(self, client: str) -> FCFSQueue:
        queue = self._waiting.get(client)
        if queue is None:
            queue = self._waiting[client] = FCFSQueue()
            counter = self._counters.setdefault(client, 0.0)
            rank = self._rank.setdefault(client, len(self._rank))
            if client not in self._in_heap:
                self._in_heap.add(client)
                heappush(self._heap, (counter, rank, client))
        return queue

    def _next_client(self) -> str:
        heap = self._heap
        while True:
            counter, rank, client = heap[0]
            if client not in self._waiting:
                heappop(heap)
                self._in_heap.remove(client)
            elif counter < self._counters[client]:
                heapreplace(heap, (self._counters[client], rank, client))
            else:
                return client

    def __len__(self) -> int:
        return self._num_waiting

    def __iter__(self) -> Iterator[Request]:
        for client in sorted(self._waiting, key=lambda c: (self._counters[c], self._rank[c])):
            yield from self._waiting[client]

    def __contains__(self, request: object) -> bool:
        return isinstance(request, Request) and request in self._waiting.get(request.client_id, ())
