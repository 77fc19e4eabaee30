"""The physical KV blocks of one replica: who may hand one out, what it holds, how often it is used.

Free blocks stand in one line: first the blocks that hold nothing worth keeping, the last freed in
front, then the cached ones in the order of the eviction policy. With LRU eviction the line, and so
every physical block id, is vLLM's. The pool knows nothing of requests.
"""

from collections.abc import Hashable, Iterable, Sequence

from workbench.errors import SchedulerError
from workbench.kv_cache.eviction import EvictionPolicy

NULL_BLOCK = 0


class BlockPool:
    """Blocks 1 to `num_blocks`; block 0 is a placeholder that is never handed out.

    Args:
        num_blocks: Usable blocks.
        eviction: Order of the cached blocks that nobody references.

    Attributes:
        ref_counts: Users of each block, by block id.
        key_of: Key of the content of each cached block, by block id.
    """

    __slots__ = ("_by_key", "_empty", "eviction", "key_of", "num_blocks", "ref_counts")

    def __init__(self, num_blocks: int, eviction: EvictionPolicy) -> None:
        self.num_blocks = num_blocks
        self.eviction = eviction
        self.ref_counts = [0] * (num_blocks + 1)
        self.key_of: dict[int, Hashable] = {}
        # A key's block, or its blocks in the order they were cached: two requests may compute
        # the same block side by side, and block tables only ever grow.
        self._by_key: dict[Hashable, int | list[int]] = {}
        # A stack: the last block is the first of the line.
        self._empty = list(range(num_blocks, 0, -1))
        eviction.bind(self.key_of.__getitem__)

    @property
    def num_free_blocks(self) -> int:
        """Blocks that nobody references."""
        return len(self._empty) + len(self.eviction)

    def get_cached_block(self, key: Hashable) -> int | None:
        """The block that has held this key longest, or None."""
        block = self._by_key.get(key)
        return block[0] if type(block) is list else block  # type: ignore[return-value]

    def longest_prefix(self, keys: Sequence[Hashable]) -> list[int]:
        """The cached blocks of the longest run of keys from the first on."""
        blocks = []
        lookup = self._by_key.get
        for key in keys:
            block = lookup(key)
            if block is None:
                break
            blocks.append(block[0] if type(block) is list else block)
        return blocks  # type: ignore[return-value]

    def get_new_blocks(self, num_blocks: int) -> list[int]:
        """Take the first blocks of the line; what they held is forgotten."""
        empty, ref_counts = self._empty, self.ref_counts
        if num_blocks == 1 and empty:
            block = empty.pop()
            ref_counts[block] = 1
            return [block]
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
            self._forget(victims)
            blocks += victims
        for block in blocks:
            ref_counts[block] = 1
        return blocks

    def touch(self, blocks: Iterable[int]) -> None:
        """Reference cached blocks once more; free ones leave the line."""
        ref_counts = self.ref_counts
        was_free = []
        for block in blocks:
            if block == NULL_BLOCK:
                continue
            if not ref_counts[block]:
                was_free.append(block)
            ref_counts[block] += 1
        if was_free:
            self.eviction.remove_many(was_free)

    def free_blocks(self, blocks: Iterable[int]) -> None:
        """Drop one reference of each block.

        Args:
            blocks: In the order in which they are to be evicted; null blocks are passed over.
        """
        ref_counts, key_of = self.ref_counts, self.key_of
        emptied, cached = [], []
        for block in blocks:
            if block == NULL_BLOCK:
                continue
            count = ref_counts[block] - 1
            ref_counts[block] = count
            if not count:
                if block in key_of:
                    cached.append(block)
                else:
                    emptied.append(block)
        if emptied:
            emptied.reverse()
            self._empty += emptied
        if cached:
            self.eviction.insert_many(cached)

    def cache_full_blocks(self, blocks: Sequence[int], keys: Sequence[Hashable]) -> None:
        """Make full blocks known under the keys of their content; null blocks are passed over."""
        by_key, key_of = self._by_key, self.key_of
        if len(blocks) == 1:
            block, key = blocks[0], keys[0]
            if block != NULL_BLOCK and key not in by_key:
                by_key[key] = block
                key_of[block] = key
                return
        elif len(blocks) > 4 and NULL_BLOCK not in blocks and by_key.keys().isdisjoint(keys):
            by_key.update(zip(keys, blocks, strict=True))
            key_of.update(zip(blocks, keys, strict=True))
            return
        for block, key in zip(blocks, keys, strict=True):
            if block == NULL_BLOCK:
                continue
            key_of[block] = key
            present = by_key.setdefault(key, block)
            if type(present) is list:
                present.append(block)
            elif present != block:
                by_key[key] = [present, block]  # type: ignore[list-item]

    def count_unreferenced(self, blocks: Iterable[int]) -> int:
        """How many of these cached blocks stand in the line of free blocks."""
        ref_counts = self.ref_counts
        return sum(1 for block in blocks if block != NULL_BLOCK and not ref_counts[block])

    def reset_prefix_cache(self) -> bool:
        """Forget all content; only possible, and True, while no block is referenced."""
        if self.num_free_blocks != self.num_blocks:
            return False
        victims = self.eviction.pop_many(len(self.eviction))
        self._forget(victims)
        self._empty[:0] = reversed(victims)
        return True

    def _forget(self, blocks: Iterable[int]) -> None:
        by_key, pop_key = self._by_key, self.key_of.pop
        for block in blocks:
            key = pop_key(block)
            present = by_key.pop(key)
            if type(present) is list:
                present.remove(block)
                if present:
                    by_key[key] = present

    def free_line(self) -> list[int]:
        """All free blocks in the order in which they would be handed out."""
        return [*reversed(self._empty), *self.eviction]

    def check_integrity(self) -> None:
        """Raise AssertionError unless every block is free exactly once or referenced."""
        line = self.free_line()
        assert len(line) == len(set(line)) == self.num_free_blocks, "a block is free twice"
        for block in range(1, self.num_blocks + 1):
            free = self.ref_counts[block] == 0
            assert self.ref_counts[block] >= 0, f"block {block} was freed too often"
            assert free == (block in set(line)) if len(line) < 64 else True
        assert sum(1 for c in self.ref_counts[1:] if c == 0) == len(line), "a block has leaked"
        assert all(self.ref_counts[block] == 0 for block in line), "a used block is free"
        assert not any(block in self.key_of for block in self._empty), "an emptied block has a key"
        assert all(block in self.key_of for block in self.eviction), "a cached block lost its key"
        by_key = {
            block: key
            for key, held in self._by_key.items()
            for block in (held if type(held) is list else [held])  # type: ignore[list-item]
        }
        assert by_key == self.key_of, "keys and blocks disagree"
