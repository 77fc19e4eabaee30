"""The physical KV blocks of one replica: who may hand one out, what it holds, how often it is used.

Free blocks stand in one line: first the blocks that hold nothing worth keeping, the last freed in
front, then the cached ones in the order of the eviction policy. With LRU eviction the line, and so
every physical block id, is vLLM's. The pool knows nothing of requests.

Long prompts move hundreds of blocks at a time, so lists of blocks are worked on as wholes.
"""

from collections.abc import Hashable, Iterable, Sequence
from itertools import islice

from workbench.errors import SchedulerError
from workbench.kv_cache.eviction import EvictionPolicy

NULL_BLOCK = 0
LOOKUP_SIZE = 32
MOST_USERS = 254


def show_state(num_users: int, is_cached: bool) -> int:
    """A block in one byte: 0 free, 1 free but cached, 1 + n used by n requests (n up to 254)."""
    return 1 + min(num_users, MOST_USERS) if num_users else int(is_cached)


class BlockPool:
    """Blocks 1 to `num_blocks`; block 0 is a placeholder that is never handed out.

    Args:
        num_blocks: Usable blocks.
        eviction: Order of the cached blocks that nobody references.

    Attributes:
        ref_counts: Users of each block, by block id.
        num_shared_refs: Users of blocks beyond the first of each, over all blocks.
        key_of: Key of each block's content, by block id; None where it is not cached.
    """

    __slots__ = (
        "_by_key",
        "_duplicates",
        "_empty",
        "eviction",
        "key_of",
        "num_blocks",
        "num_shared_refs",
        "ref_counts",
    )

    def __init__(self, num_blocks: int, eviction: EvictionPolicy) -> None:
        self.num_blocks = num_blocks
        self.eviction = eviction
        self.ref_counts = [0] * (num_blocks + 1)
        self.num_shared_refs = 0
        self.key_of: list[Hashable | None] = [None] * (num_blocks + 1)
        self._by_key: dict[Hashable, int] = {}
        # Further blocks with a key that a block has already, in the order they were cached: two
        # requests may compute the same block side by side, and block tables only ever grow.
        self._duplicates: dict[Hashable, list[int]] = {}
        # A stack: the last block is the first of the line.
        self._empty = list(range(num_blocks, 0, -1))
        eviction.bind(self.key_of.__getitem__)

    @property
    def num_free_blocks(self) -> int:
        """Blocks that nobody references."""
        return len(self._empty) + len(self.eviction)

    def get_cached_block(self, key: Hashable) -> int | None:
        """The block that has held this key longest, or None."""
        return self._by_key.get(key)

    def longest_prefix(self, keys: Sequence[Hashable]) -> list[int]:
        """The cached blocks of the longest run of keys from the first on."""
        blocks: list[int] = []
        lookup = self._by_key.get
        if not keys or lookup(keys[0]) is None:
            return blocks
        remaining = iter(keys)
        while found := list(map(lookup, islice(remaining, LOOKUP_SIZE))):
            if None in found:
                blocks += found[: found.index(None)]  # type: ignore[arg-type]
                break
            blocks += found  # type: ignore[arg-type]
        return blocks

    def num_cached_blocks(self, keys: Sequence[Hashable]) -> int:
        """Blocks of the longest cached prefix of these keys."""
        return len(self.longest_prefix(keys))

    def get_new_blocks(self, num_blocks: int) -> list[int]:
        """Take the first blocks of the line; what they held is forgotten."""
        empty, ref_counts = self._empty, self.ref_counts
        if num_blocks > self.num_free_blocks:
            raise SchedulerError(
                f"{num_blocks} blocks asked for, {self.num_free_blocks} are free: check first"
            )
        num_empty = min(num_blocks, len(empty))
        blocks = empty[: -num_empty - 1 : -1]
        if num_empty:
            del empty[-num_empty:]
        if num_empty < num_blocks:
            victims = self.eviction.pop_many(num_blocks - num_empty)
            if len(victims) != num_blocks - num_empty:
                raise SchedulerError(
                    f"{type(self.eviction).__name__}.pop_many returned {len(victims)} blocks of "
                    f"{num_blocks - num_empty} asked for: it must return as many"
                )
            self._forget(victims)
            blocks = blocks + victims if blocks else victims
        for block in blocks:
            ref_counts[block] = 1
        return blocks

    def get_new_block(self) -> int:
        """Take the first block of the line; there must be one."""
        if self._empty:
            block = self._empty.pop()
        else:
            victims = self.eviction.pop_many(1)
            self._forget(victims)
            block = victims[0]
        self.ref_counts[block] = 1
        return block

    def touch(self, blocks: Iterable[int]) -> None:
        """Reference cached blocks once more; free ones leave the line."""
        ref_counts = self.ref_counts
        was_free = []
        for block in blocks:
            if block == NULL_BLOCK:
                continue
            if ref_counts[block]:
                self.num_shared_refs += 1
            else:
                was_free.append(block)
            ref_counts[block] += 1
        if was_free:
            self.eviction.remove_many(was_free)

    def free_blocks(self, blocks: Sequence[int]) -> None:
        """Drop one reference of each block.

        Args:
            blocks: In the order in which they are to be evicted; null blocks are passed over.
        """
        ref_counts, key_of = self.ref_counts, self.key_of
        counts = list(map(ref_counts.__getitem__, blocks))
        for block, count in zip(blocks, counts, strict=True):
            ref_counts[block] = count - 1
        ref_counts[NULL_BLOCK] = 0
        released = [block for block, count in zip(blocks, counts, strict=True) if count == 1]
        if len(released) < len(blocks):
            self.num_shared_refs -= sum(count > 1 for count in counts)
        keys = list(map(key_of.__getitem__, released))
        num_emptied = keys.count(None)
        if not num_emptied:
            cached: Sequence[int] = released
        else:
            # What a request has not filled is the end of its table: the first of the released.
            emptied = released[:num_emptied]
            cached = released[num_emptied:]
            if keys[:num_emptied].count(None) < num_emptied:
                emptied = [b for b, key in zip(released, keys, strict=True) if key is None]
                cached = [b for b, key in zip(released, keys, strict=True) if key is not None]
            self._empty += emptied[::-1]
        if cached:
            self.eviction.insert_many(cached)

    def cache_full_blocks(self, blocks: Sequence[int], keys: Sequence[Hashable]) -> None:
        """Make full blocks known under the keys of their content; null blocks are passed over."""
        by_key, key_of = self._by_key, self.key_of
        if len(blocks) > 1 and NULL_BLOCK not in blocks and by_key.keys().isdisjoint(keys):
            by_key.update(zip(keys, blocks, strict=True))
            for block, key in zip(blocks, keys, strict=True):
                key_of[block] = key
            return
        for block, key in zip(blocks, keys, strict=True):
            if block != NULL_BLOCK:
                self.cache_full_block(block, key)

    def cache_full_block(self, block: int, key: Hashable) -> None:
        """Make one full block known under the key of its content."""
        self.key_of[block] = key
        if self._by_key.setdefault(key, block) != block:
            self._duplicates.setdefault(key, []).append(block)

    def count_unreferenced(self, blocks: Sequence[int]) -> int:
        """How many of these cached blocks stand in the line of free blocks."""
        counts = list(map(self.ref_counts.__getitem__, blocks))
        return counts.count(0) - (blocks.count(NULL_BLOCK) if NULL_BLOCK in blocks else 0)

    def reset_prefix_cache(self) -> bool:
        """Forget all content; only possible, and True, while no block is referenced."""
        if self.num_free_blocks != self.num_blocks:
            return False
        victims = self.eviction.pop_many(len(self.eviction))
        self._forget(victims)
        self._empty[:0] = reversed(victims)
        return True

    def forget_blocks(self, blocks: Sequence[int]) -> None:
        """Make blocks in use unknown again; null blocks are passed over."""
        self._forget([block for block in blocks if self.key_of[block] is not None])

    def _forget(self, blocks: list[int]) -> None:
        by_key, key_of = self._by_key, self.key_of
        keys = list(map(key_of.__getitem__, blocks))
        for block in blocks:
            key_of[block] = None
        if self._duplicates:
            for block, key in zip(blocks, keys, strict=True):
                self._forget_one(block, key)
        else:
            for key in keys:
                del by_key[key]

    def _forget_one(self, block: int, key: Hashable) -> None:
        by_key = self._by_key
        others = self._duplicates.get(key)
        if others is None:
            del by_key[key]
            return
        if by_key[key] == block:
            by_key[key] = others.pop(0)
        else:
            others.remove(block)
        if not others:
            del self._duplicates[key]

    def free_line(self) -> list[int]:
        """All free blocks in the order in which they would be handed out."""
        return [*reversed(self._empty), *self.eviction]

    def block_states(self) -> bytes:
        """What blocks 1 to `num_blocks` are, for people to look at; see `show_state`."""
        counts, keys = self.ref_counts[1:], self.key_of[1:]
        users = zip(counts, keys, strict=True)
        return bytes([show_state(n, True) if n else key is not None for n, key in users])

    def check_integrity(self) -> None:
        """Raise AssertionError unless every block is free exactly once or referenced."""
        line = self.free_line()
        assert len(line) == len(set(line)) == self.num_free_blocks, "a block is free twice"
        assert min(self.ref_counts) >= 0, "a block was freed too often"
        unused = [b for b in range(1, self.num_blocks + 1) if not self.ref_counts[b]]
        assert unused == sorted(line), "a block has leaked, or a used one is free"
        assert all(self.key_of[b] is None for b in self._empty), "an emptied block has a key"
        assert all(self.key_of[b] is not None for b in self.eviction), "a cached block lost its key"
        held = {block: key for key, block in self._by_key.items()}
        held |= {b: key for key, others in self._duplicates.items() for b in others}
        assert held == {b: k for b, k in enumerate(self.key_of) if k is not None}, "keys disagree"
