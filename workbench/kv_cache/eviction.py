"""Which cached block is given up first, among those that no request references.

A policy knows block ids and, through `key_of`, what each block holds; it knows no request, no
reference count and no time. A new policy is one class and one yaml: derive from RankedEviction and
say what `rank` a block waits under.

A request's blocks arrive with its last one first, so that of blocks that a policy holds equal the
end of a prefix goes before its beginning: a prefix whose first block is gone cannot be found.
"""

from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from math import inf

from workbench.errors import ConfigError


class EvictionPolicy(ABC):
    """Base of all eviction policies: an ordered set of block ids.

    Attributes:
        needs_future: The policy has `set_future`, to be called before the run.
    """

    needs_future: bool = False

    def bind(self, key_of: Callable[[int], Hashable]) -> None:
        """Give the policy a way to ask for the key of a block's content.

        Args:
            key_of: Holds for a block from the time it is inserted until `pop_many` returns it.
        """
        self.key_of = key_of

    @abstractmethod
    def insert_many(self, block_ids: Sequence[int]) -> None:
        """Blocks have lost their last reference; the first goes first among equals."""

    @abstractmethod
    def remove(self, block_id: int) -> None:
        """A block that stands here was hit and is in use again."""

    def remove_many(self, block_ids: Sequence[int]) -> None:
        """`remove` for each of these different blocks, faster where a policy can."""
        for block_id in block_ids:
            self.remove(block_id)

    @abstractmethod
    def pop_many(self, num_blocks: int) -> list[int]:
        """Take the victims, first the one evicted first; at most `len(self)`."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of blocks that stand here."""

    @abstractmethod
    def __iter__(self) -> Iterator[int]:
        """The blocks in the order in which they would be evicted."""

    def set_future(self, accesses: Iterable[tuple[float, Sequence[Hashable]]]) -> None:  # noqa: B027
        """Hook: (time, keys) of each coming look-up, told before the run where `needs_future`."""

    def on_hit(self, keys: Sequence[Hashable]) -> None:  # noqa: B027
        """Hook: an admitted request found these keys in the cache."""

    def on_lookup(self, keys: Sequence[Hashable]) -> None:  # noqa: B027
        """Hook: a request, at its first admission, asked for these keys, found or not."""

    def on_dropped(self, keys: Sequence[Hashable], arrival_time: float) -> None:  # noqa: B027
        """Hook: a request has ended before its first admission and never asks for these keys.

        Args:
            keys: As `on_lookup` would have told them.
            arrival_time: Seconds; as in `set_future`.
        """


class LRUEviction(EvictionPolicy):
    """The block that was released longest ago (least recently used; vLLM's order).

    With full attention alone the cache keeps this order itself, in runs of blocks (see RunPool),
    and never asks.
    """

    def __init__(self) -> None:
        self._line: OrderedDict[int, None] = OrderedDict()

    def insert_many(self, block_ids: Sequence[int]) -> None:
        self._line.update(dict.fromkeys(block_ids))

    def remove(self, block_id: int) -> None:
        del self._line[block_id]

    def pop_many(self, num_blocks: int) -> list[int]:
        return [self._line.popitem(last=False)[0] for _ in range(num_blocks)]

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[int]:
        return iter(self._line)


class RankedEviction(EvictionPolicy):
    """Base of policies that evict the smallest rank; of equal ranks, the one released longest ago.

    A binary heap whose outdated entries stay until they reach the top or outnumber the living.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int]] = []  # rank, number of the insertion, block
        self._entries: dict[int, tuple[float, int, int]] = {}
        self._num_inserted = 0

    @abstractmethod
    def rank(self, block_id: int) -> float:
        """What the order compares, asked when the block is released; smaller goes first."""

    def forget(self, block_id: int) -> None:
        """Hook: a block is evicted; its key may be asked for a last time."""

    def insert_many(self, block_ids: Sequence[int]) -> None:
        for block_id in block_ids:
            self._num_inserted += 1
            self._push(block_id, self._num_inserted)

    def rerank(self, block_id: int) -> None:
        """Ask for a block's rank again; one that does not stand here is passed over."""
        if block_id in self._entries:
            self._push(block_id, self._entries[block_id][1])

    def _push(self, block_id: int, number: int) -> None:
        entry = (self.rank(block_id), number, block_id)
        self._entries[block_id] = entry
        heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._entries) + 1024:
            self._heap = list(self._entries.values())
            heapify(self._heap)

    def remove(self, block_id: int) -> None:
        del self._entries[block_id]

    def pop_many(self, num_blocks: int) -> list[int]:
        heap, entries = self._heap, self._entries
        victims: list[int] = []
        while len(victims) < num_blocks:
            entry = heappop(heap)
            block_id = entry[2]
            if entries.get(block_id) is entry:
                del entries[block_id]
                self.forget(block_id)
                victims.append(block_id)
        return victims

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[int]:
        return (block_id for _, _, block_id in sorted(self._entries.values()))


class FIFOEviction(RankedEviction):
    """The block that came into the cache first, however often it was hit since.

    The baseline that shows what recency is worth. A block's age counts from its first release, when
    it first can be evicted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._first_release: dict[int, int] = {}

    def rank(self, block_id: int) -> float:
        return self._first_release.setdefault(block_id, self._num_inserted)

    def forget(self, block_id: int) -> None:
        del self._first_release[block_id]


class LFUEviction(RankedEviction):
    """The block whose content was hit least often while it was cached (least frequently used).

    Keeps system prompts through a burst of one-off requests; slow to let go of what was popular
    once. Hits are forgotten when the content is evicted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._hits: Counter[Hashable] = Counter()

    def on_hit(self, keys: Sequence[Hashable]) -> None:
        self._hits.update(keys)

    def rank(self, block_id: int) -> float:
        return self._hits.get(self.key_of(block_id), 0)

    def forget(self, block_id: int) -> None:
        self._hits.pop(self.key_of(block_id), None)


class BeladyEviction(RankedEviction):
    """The block whose next use is farthest away (MIN; Belady, IBM Systems Journal 1966).

    An oracle for offline study: for blocks that are asked for one at a time no policy has more
    hits, so the distance to it is what a better policy could gain. It must be told the future, and
    `on_lookup` moves it along: each look-up uses up the next use of every key it names, so requests
    may be admitted in another order than they arrive in. With several replicas, each has to be told
    the requests that will be routed to it.
    """

    needs_future = True

    def __init__(self) -> None:
        super().__init__()
        self._next_uses: dict[Hashable, list[float]] | None = None  # of each key, last use first
        self._blocks: dict[Hashable, set[int]] = {}  # that were released and not evicted since

    def set_future(self, accesses: Iterable[tuple[float, Sequence[Hashable]]]) -> None:
        """Tell which keys will be looked up, and when.

        Args:
            accesses: (time, keys) of each coming request; the times, in any unit, never decrease.
        """
        next_uses: dict[Hashable, list[float]] = {}
        for time, keys in accesses:
            for key in keys:
                next_uses.setdefault(key, []).append(time)
        for uses in next_uses.values():
            uses.reverse()
        self._next_uses = next_uses

    def on_lookup(self, keys: Sequence[Hashable]) -> None:
        for key in keys:
            self._strike_use(key, None)

    def on_dropped(self, keys: Sequence[Hashable], arrival_time: float) -> None:
        for key in keys:
            self._strike_use(key, arrival_time)

    def _strike_use(self, key: Hashable, time: float | None) -> None:
        """Take a coming use off a key's list: the one at `time` if it is there, or the next."""
        uses = (self._next_uses or {}).get(key)
        if uses:
            del uses[uses.index(time) if time in uses else -1]
            for block_id in self._blocks.get(key, ()):
                self.rerank(block_id)

    def rank(self, block_id: int) -> float:
        if self._next_uses is None:
            raise ConfigError(
                "eviction=belady was told no future: it needs a workload whose requests are all "
                "known before the run; choose eviction=lru for any other"
            )
        key = self.key_of(block_id)
        self._blocks.setdefault(key, set()).add(block_id)
        uses = self._next_uses.get(key)
        return -uses[-1] if uses else -inf

    def forget(self, block_id: int) -> None:
        key = self.key_of(block_id)
        self._blocks[key].remove(block_id)
        if not self._blocks[key]:
            del self._blocks[key]
