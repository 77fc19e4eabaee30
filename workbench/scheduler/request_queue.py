"""The waiting requests and their order: who is asked for next.

A queue knows requests and the service they were given; it knows no token budget, no KV cache and no
running batch. A new policy is one class and one yaml: derive from KeyedQueue and say what `key` a
request waits under. Adding costs O(log n) or less, and so does removing a request from anywhere.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Any

from workbench.request import Request


class RequestQueue(ABC):
    """Base of all queue policies.

    A request waits in a queue at most once. `peek` and `pop` of an empty queue, and `remove` of a
    request that does not wait, raise LookupError.

    Attributes:
        counts_service: Whether the queue wants `on_tokens`. A class that defines `on_tokens` and
            does not say wants it. Telling costs time, and simulated decodes are then taken one by
            one; say False where `on_tokens` is there and need not be told.
    """

    counts_service = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = next(
            n for n in map(vars, cls.__mro__) if {"counts_service", "on_tokens"} & n.keys()
        )
        if "counts_service" not in names:
            cls.counts_service = True

    @abstractmethod
    def add(self, request: Request, now: float) -> None:
        """A request has arrived; `now` in seconds."""

    @abstractmethod
    def prepend(self, request: Request) -> None:
        """A preempted or passed-over request comes back: in front, or where its key puts it."""

    @abstractmethod
    def peek(self) -> Request:
        """The request that is next."""

    @abstractmethod
    def pop(self) -> Request:
        """Take the request that is next."""

    @abstractmethod
    def remove(self, request: Request) -> None:
        """Take out a request wherever it stands, without a scan."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of waiting requests."""

    @abstractmethod
    def __iter__(self) -> Iterator[Request]:
        """The waiting requests in the order in which `pop` would give them."""

    @abstractmethod
    def __contains__(self, request: object) -> bool:
        """Whether the request waits here."""

    def key(self, request: Request) -> tuple[Any, ...]:
        """What the order compares; smaller comes first. By default the order of arrival."""
        return (request.arrival_time, request.arrival_index)

    def on_tokens(  # noqa: B027
        self, request: Request, num_prompt_tokens: int, num_output_tokens: int
    ) -> None:
        """Hook: a request was given service; its prompt is told as soon as it is popped."""


class FCFSQueue(RequestQueue):
    """First come, first served; what is prepended goes before all others (vLLM's policy "fcfs").

    The baseline: no request starves, but one long prompt holds up everything behind it.
    """

    def __init__(self) -> None:
        self._requests: OrderedDict[Request, None] = OrderedDict()

    def add(self, request: Request, now: float) -> None:
        self._requests[request] = None

    def prepend(self, request: Request) -> None:
        self._requests[request] = None
        self._requests.move_to_end(request, last=False)

    def peek(self) -> Request:
        for request in self._requests:
            return request
        raise IndexError("peek at an empty queue")

    def pop(self) -> Request:
        return self._requests.popitem(last=False)[0]

    def remove(self, request: Request) -> None:
        del self._requests[request]

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def __contains__(self, request: object) -> bool:
        return request in self._requests


class KeyedQueue(RequestQueue):
    """Base of queues ordered by a key that stays the same while a request waits.

    A binary heap whose removed entries stay until they reach the top or outnumber the living.
    Equal keys keep their order of insertion.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[Any, ...], int, Request]] = []
        self._entries: dict[Request, tuple[tuple[Any, ...], int, Request]] = {}
        self._num_inserted = 0

    @abstractmethod
    def key(self, request: Request) -> tuple[Any, ...]:
        """What the order compares, read once when the request is added or prepended."""

    def add(self, request: Request, now: float) -> None:
        self.prepend(request)

    def prepend(self, request: Request) -> None:
        self._num_inserted += 1
        entry = (self.key(request), self._num_inserted, request)
        self._entries[request] = entry
        heappush(self._heap, entry)

    def peek(self) -> Request:
        heap, entries = self._heap, self._entries
        while entries.get(heap[0][2]) is not heap[0]:
            heappop(heap)
        return heap[0][2]

    def pop(self) -> Request:
        request = self.peek()
        heappop(self._heap)
        del self._entries[request]
        return request

    def remove(self, request: Request) -> None:
        del self._entries[request]
        if len(self._heap) > 2 * len(self._entries) + 64:
            self._heap = list(self._entries.values())
            heapify(self._heap)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Request]:
        return (request for _, _, request in sorted(self._entries.values()))

    def __contains__(self, request: object) -> bool:
        return request in self._entries


class PriorityQueue(KeyedQueue):
    """The smallest priority value first, then the earliest arrival (vLLM's policy "priority").

    A preempted request returns to the place its priority and arrival give it.
    """

    def key(self, request: Request) -> tuple[Any, ...]:
        return (request.priority, request.arrival_time, request.arrival_index)
