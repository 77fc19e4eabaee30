"""The rules of one KV-cache group: layers that keep the same tokens and share a block table.

A group computes; it never decides. Full attention keeps every block until the request ends; sliding
window attention gives back the blocks that have left the window.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence

from workbench.kv_cache.block_hash import BlockHashes
from workbench.kv_cache.block_pool import NULL_BLOCK, BlockPool
from workbench.request import Request


class KVCacheGroup(ABC):
    """Base of all groups: the rules of full attention.

    Args:
        group_id: Position among the request's block tables.
        block_size: Tokens a block.
    """

    has_window = False

    def __init__(self, group_id: int, block_size: int) -> None:
        self.group_id = group_id
        self.block_size = block_size

    @abstractmethod
    def find_longest_hit(self, hashes: BlockHashes, num_blocks: int) -> list[int]:
        """The cached blocks of the longest usable prefix of the first `num_blocks` full blocks."""

    @abstractmethod
    def count_unreferenced(self, hit: list[int], start: int) -> int:
        """How many blocks of a hit, from `start` on, stand in the line of free blocks."""

    @abstractmethod
    def adopt(self, request: Request, hit: list[int], num_computed_tokens: int) -> None:
        """Start a request's block table with the blocks of a prefix hit."""

    @abstractmethod
    def cache_full_blocks(self, request: Request, hashes: BlockHashes, num_full: int) -> None:
        """Make a request's first `num_full` blocks known; some of them are not yet."""

    def cache_next_block(self, request: Request, hashes: BlockHashes) -> None:
        """Make a request's first block known that is not yet."""
        self.cache_full_blocks(request, hashes, request.num_cached_blocks[self.group_id] + 1)

    @abstractmethod
    def forget(self, request: Request, num_full: int) -> None:
        """Make a request's cached blocks behind the first `num_full` ones unknown again."""

    @abstractmethod
    def num_shared_blocks(self, request: Request) -> int:
        """Blocks of a request up to the last one that somebody else uses too."""

    def forget_own(self, request: Request) -> None:
        """Make a request's cached blocks unknown that nobody else uses."""
        num_shared = self.num_shared_blocks(request)
        if request.num_cached_blocks[self.group_id] > num_shared:
            self.forget(request, num_shared)

    @abstractmethod
    def free(self, request: Request) -> None:
        """Give back a request's blocks, the last ones to be evicted first."""

    def num_skipped_tokens(self, num_computed_tokens: int) -> int:
        """Leading tokens that no token from `num_computed_tokens` on attends to."""
        return 0

    def num_blocks_to_allocate(
        self, request: Request, num_tokens: int, hit: list[int], num_computed_tokens: int
    ) -> int:
        """Free blocks this takes: new ones, and hit blocks that stand in the free line.

        Args:
            request: The request.
            num_tokens: Tokens that need a slot in all.
            hit: Cached blocks about to be adopted (null blocks in front of a window).
            num_computed_tokens: Tokens computed, those of the hit included.
        """
        num_required = -(-num_tokens // self.block_size)
        held = len(request.block_ids[self.group_id]) if request.block_ids else 0
        if not hit:
            return max(num_required - held, 0)
        num_skipped = self.num_skipped_tokens(num_computed_tokens) // self.block_size
        num_new = max(num_required - max(num_skipped, len(hit) + held), 0)
        return num_new + self.count_unreferenced(hit, max(num_skipped - held, 0))

    def admission_cap(self, num_blocks: int) -> int:
        """Most blocks a request of `num_blocks` blocks ever holds at once."""
        return num_blocks

    def free_skipped(self, request: Request, num_processed_tokens: int) -> None:  # noqa: B027
        """Give back the blocks that no coming token attends to."""

    def quiet_tokens(self, request: Request) -> int:
        """Decode tokens that can be scheduled before a block may leave the window."""
        return 1 << 60


class FullAttentionGroup(KVCacheGroup):
    """Layers that attend to every token.

    Args:
        group_id, block_size: As above.
        pool: Where blocks come from.
    """

    def __init__(self, group_id: int, block_size: int, pool: BlockPool) -> None:
        super().__init__(group_id, block_size)
        self.pool = pool

    def keys(self, keys: Sequence[Hashable]) -> Sequence[Hashable]:
        """The pool's keys of this group: the same content of another group is other memory."""
        group_id = self.group_id
        return keys if group_id == 0 else [(group_id, key) for key in keys]

    def find_longest_hit(self, hashes: BlockHashes, num_blocks: int) -> list[int]:
        return self.pool.longest_prefix(self.keys(hashes.get(0, num_blocks)))

    def count_unreferenced(self, hit: list[int], start: int) -> int:
        return self.pool.count_unreferenced(hit[start:])

    def adopt(self, request: Request, hit: list[int], num_computed_tokens: int) -> None:
        num_skipped = self.num_skipped_tokens(num_computed_tokens) // self.block_size
        kept = hit[num_skipped:]
        self.pool.touch(kept)
        table = request.block_ids[self.group_id]
        table.extend([NULL_BLOCK] * num_skipped)
        table.extend(kept)
        request.num_cached_blocks[self.group_id] = len(table)

    def cache_full_blocks(self, request: Request, hashes: BlockHashes, num_full: int) -> None:
        num_cached = request.num_cached_blocks[self.group_id]
        blocks = request.block_ids[self.group_id][num_cached:num_full]
        self.pool.cache_full_blocks(blocks, self.keys(hashes.get(num_cached, num_full)))
        request.num_cached_blocks[self.group_id] = num_full

    def forget(self, request: Request, num_full: int) -> None:
        num_cached = request.num_cached_blocks[self.group_id]
        self.pool.forget_blocks(request.block_ids[self.group_id][num_full:num_cached])
        request.num_cached_blocks[self.group_id] = num_full

    def num_shared_blocks(self, request: Request) -> int:
        table = request.block_ids[self.group_id] if request.block_ids else []
        ref_counts = self.pool.ref_counts
        return max((i for i, block in enumerate(table, 1) if ref_counts[block] > 1), default=0)

    def free(self, request: Request) -> None:
        self.pool.free_blocks(request.block_ids[self.group_id][::-1])


class SlidingWindowGroup(FullAttentionGroup):
    """Layers that attend to the last `window` tokens, the current one included.

    Args:
        group_id, block_size, pool: As above.
        window: Tokens of attention.
        max_in_flight_tokens: Most tokens scheduled and not yet returned.
        max_model_len: Most tokens of a request.
    """

    has_window = True

    def __init__(
        self,
        group_id: int,
        block_size: int,
        pool: BlockPool,
        window: int,
        max_in_flight_tokens: int,
        max_model_len: int,
    ) -> None:
        super().__init__(group_id, block_size, pool)
        self.window = window
        most = min(window - 1 + max_in_flight_tokens, max_model_len)
        # One more: the window need not begin at a block's beginning.
        self._admission_cap = -(-most // block_size) + 1

    def find_longest_hit(self, hashes: BlockHashes, num_blocks: int) -> list[int]:
        """Search from the right for enough consecutive cached blocks to fill the window.

        Blocks left of the window are null blocks. A run that reaches the first block counts even
        where it is shorter than the window.
        """
        keys = self.keys(hashes.get(0, num_blocks))
        needed = -(-(self.window - 1) // self.block_size)
        hit = [NULL_BLOCK] * len(keys)
        run = 0
        for i in range(len(keys) - 1, -1, -1):
            block = self.pool.get_cached_block(keys[i])
            if block is None:
                run = 0
                continue
            hit[i] = block
            run += 1
            if run >= needed:
                return hit[: i + run]
        return hit[:run]

    def num_skipped_tokens(self, num_computed_tokens: int) -> int:
        return max(0, num_computed_tokens - self.window + 1)

    def admission_cap(self, num_blocks: int) -> int:
        return min(num_blocks, self._admission_cap)

    def free_skipped(self, request: Request, num_processed_tokens: int) -> None:
        num_skipped = self.num_skipped_tokens(num_processed_tokens) // self.block_size
        table = request.block_ids[self.group_id]
        freed = []
        # Backwards, so that a block is freed before those in front of it and the walk can stop
        # at the first one that an earlier call has already freed.
        for i in range(min(num_skipped, len(table)) - 1, -1, -1):
            if table[i] == NULL_BLOCK:
                break
            freed.append(table[i])
            table[i] = NULL_BLOCK
        if freed:
            self.pool.free_blocks(freed)

    def quiet_tokens(self, request: Request) -> int:
        table = request.block_ids[self.group_id]
        first_held = next((i for i, block in enumerate(table) if block != NULL_BLOCK), len(table))
        leaves_at = (first_held + 1) * self.block_size + self.window - 1
        return leaves_at - request.num_computed_tokens
