"""Which blocks a request uses: prefix hits, allocation, release.

It is the scheduler's only door to the KV cache. The order of every operation on the pool follows
vLLM's, so that with LRU eviction the physical block ids are equal too. The manager knows requests
and blocks; it knows no queue, no budget and no time.
"""

from collections.abc import Hashable, Iterable, Sequence

from workbench.config import CacheConfig
from workbench.kv_cache.block_hash import BlockHashes
from workbench.kv_cache.block_tables import BlockTables
from workbench.kv_cache.cache_layout import make_layout
from workbench.kv_cache.eviction import EvictionPolicy
from workbench.kv_cache.integrity import check_integrity
from workbench.kv_cache.lookup_log import LookupLog
from workbench.kv_cache.prefix_hit import PrefixHit
from workbench.request import Request

NO_BLOCKS: list[list[int]] = [[]]


class KVCacheManager:
    """The KV cache of one replica.

    Args:
        config: Block size, prefix caching, windows.
        num_blocks: Usable blocks.
        max_model_len: Most tokens of a request.
        max_in_flight_tokens: Most tokens scheduled and not yet returned.
        eviction: Order in which cached blocks are given up.
        watermark: Share of all blocks that admissions leave free.
        caches_late: Make known blocks that no other request can ask for only when they are freed,
            where their place in the line of free blocks begins to matter. Every token that is
            scheduled must be one that is known or will be (no drafts, no placeholders).
        use_runs: Work on the cached blocks of a sequence as a whole where that is possible. It
            changes no decision; off, every block is moved on its own.

    Attributes:
        pool: The blocks.
    """

    def __init__(
        self,
        config: CacheConfig,
        num_blocks: int,
        max_model_len: int,
        max_in_flight_tokens: int,
        eviction: EvictionPolicy,
        watermark: float = 0.0,
        *,
        caches_late: bool = False,
        use_runs: bool = True,
    ) -> None:
        self.block_size = config.block_size
        self.enable_caching = config.enable_prefix_caching
        self.max_model_len = max_model_len
        self.pool, self.groups = make_layout(
            config, num_blocks, max_model_len, max_in_flight_tokens, eviction, use_runs
        )
        self._tables = BlockTables(self.pool, self.groups, config.block_size)
        self._lookups = LookupLog(config.block_size, eviction)
        # vLLM counts its reserved null block among all blocks.
        self.watermark_blocks = int(watermark * (num_blocks + 1))
        self._has_window = any(group.has_window for group in self.groups)
        # Blocks that leave a window are freed while their request runs.
        self._caches_late = caches_late and not self._has_window
        self._no_hit = PrefixHit(tuple([] for _ in self.groups), 0)

    @property
    def num_queried_tokens(self) -> int:
        """Tokens of requests that were looked up in the prefix cache at their first admission."""
        return self._lookups.num_queried_tokens

    @property
    def num_hit_tokens(self) -> int:
        """Those of them that were found."""
        return self._lookups.num_hit_tokens

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no request references."""
        return self.pool.num_free_blocks

    @property
    def num_used_blocks(self) -> int:
        """Blocks that requests reference."""
        return self.pool.num_blocks - self.pool.num_free_blocks

    @property
    def num_shared_tokens(self) -> int:
        """KV tokens of requests in blocks that another one holds; the first user counts none.

        0 where blocks leave a window: which of them a step still reads is not counted.
        """
        return 0 if self._has_window else self.pool.num_shared_refs * self.block_size

    @property
    def usage(self) -> float:
        """Share of the blocks that requests reference, 0 to 1."""
        return self.num_used_blocks / self.pool.num_blocks

    def fits_alone(self, request: Request, num_tokens: int) -> bool:
        """Whether an empty cache could ever hold `num_tokens` tokens of this request."""
        return self._tables.most_blocks(num_tokens) <= self.pool.num_blocks

    def get_computed_blocks(self, request: Request) -> PrefixHit:
        """The longest cached prefix; at least one token is left to compute, for its logits."""
        if not self.enable_caching or request.block_hashes is None:
            return self._no_hit
        num_hit = (request.num_tokens - 1) // self.block_size
        blocks: list[list[int]] = []
        for group in self.groups:
            blocks.append(group.find_longest_hit(request.block_hashes, num_hit))
            num_hit = len(blocks[-1])
        if not num_hit:
            return self._no_hit
        for hit in blocks:
            del hit[num_hit:]
        return PrefixHit(tuple(blocks), num_hit * self.block_size)

    def num_cached_prefix_tokens(self, keys: Sequence[Hashable]) -> int:
        """Tokens of the longest cached prefix of these keys (a router's question)."""
        return self.pool.num_cached_blocks(keys) * self.block_size

    def admit_slots(
        self,
        request: Request,
        num_new_tokens: int,
        hit: PrefixHit | None = None,
        *,
        num_loaded_tokens: int = 0,
        full_sequence_must_fit: bool = False,
        keep_watermark: bool = False,
    ) -> list[list[int]] | None:
        """Give a request that holds no blocks those for its prefix and its first tokens.

        Args:
            request: A waiting request.
            num_new_tokens: Tokens about to be computed, drafts included.
            hit: Prefix to adopt.
            num_loaded_tokens: Tokens whose KV comes from elsewhere (host memory), after the hit.
            full_sequence_must_fit: Refuse unless the whole sequence fits the free blocks.
            keep_watermark: Refuse unless the watermark stays free.

        Returns:
            The new blocks of each group, or None, with nothing changed, where the free blocks do
            not suffice.
        """
        hit = hit or self._no_hit
        num_computed = request.num_computed_tokens + hit.num_tokens + num_loaded_tokens
        num_free = self.pool.num_free_blocks - (self.watermark_blocks if keep_watermark else 0)
        if full_sequence_must_fit:
            num_tokens = min(request.num_tokens, self.max_model_len)
            needed = self._tables.num_needed(request, num_tokens, hit, num_computed, cap=True)
            if needed > num_free:
                return None
        num_slots = min(num_computed + num_new_tokens, self.max_model_len)
        if self._tables.num_needed(request, num_slots, hit, num_computed) > num_free:
            return None
        self._tables.start(request, hit, num_computed)
        new_blocks = self._tables.extend(request, num_slots)
        if self.enable_caching:
            self.cache_blocks(request, min(num_computed + num_new_tokens, request.num_tokens))
        return new_blocks

    def allocate_slots(self, request: Request, num_new_tokens: int) -> list[list[int]] | None:
        """Give a running request the blocks for its next tokens.

        Args:
            request: The request.
            num_new_tokens: Tokens about to be computed, drafts included.

        Returns:
            The new blocks of each group, or None, with nothing changed but blocks that had left
            their window, where the free blocks do not suffice.
        """
        num_computed = request.num_computed_tokens
        num_slots = min(num_computed + num_new_tokens, self.max_model_len)
        if self._has_window:
            new_blocks = self._slide_tables(request, num_computed, num_slots)
        else:
            new_blocks = self._extend_table(request, num_slots)
        if new_blocks is not None and self.enable_caching:
            self.cache_blocks(request, min(num_computed + num_new_tokens, request.num_tokens))
        return new_blocks

    def _extend_table(self, request: Request, num_slots: int) -> list[list[int]] | None:
        """The new blocks of a running request where no block ever leaves a window."""
        table = request.block_ids[0]
        num_new = -(-num_slots // self.block_size) - len(table)
        if num_new <= 0:
            return NO_BLOCKS
        if num_new > self.pool.num_free_blocks:
            return None
        blocks = self.pool.get_new_blocks(num_new)
        table += blocks
        return [blocks]

    def _slide_tables(
        self, request: Request, num_computed: int, num_slots: int
    ) -> list[list[int]] | None:
        """The new blocks of a running request, once those behind its windows are given back."""
        processed = max(0, num_computed - request.num_in_flight_tokens)
        for group in self.groups:
            group.free_skipped(request, processed)
        needed = self._tables.num_needed(request, num_slots, self._no_hit, num_computed)
        if needed > self.pool.num_free_blocks:
            return None
        return self._tables.extend(request, num_slots)

    def cache_blocks(self, request: Request, num_tokens: int) -> None:
        """Make the full blocks of the first `num_tokens` tokens known to other requests."""
        hashes = request.block_hashes
        if self.enable_caching and hashes is not None:
            num_full = num_tokens // self.block_size
            if self._caches_late and num_full > hashes.num_shareable:
                num_full = hashes.num_shareable
            self._cache(request, hashes, num_full)

    def cache_rest(self, request: Request, num_tokens: int) -> None:
        """Make known what `cache_blocks` has put off of the first `num_tokens` tokens."""
        hashes = request.block_hashes
        if self._caches_late and self.enable_caching and hashes is not None:
            self._cache(request, hashes, num_tokens // self.block_size)

    def _cache(self, request: Request, hashes: BlockHashes, num_full: int) -> None:
        for group in self.groups:
            if request.num_cached_blocks[group.group_id] < num_full:
                group.cache_full_blocks(request, hashes, num_full)

    def free(self, request: Request, is_sound: bool = True) -> None:
        """Give back all blocks of a request, the last ones to be evicted first.

        Args:
            request: The request.
            is_sound: Whether what it computed may serve others; if not, the blocks that nobody else
                uses become unknown.
        """
        if request.block_ids:
            if is_sound:
                self.cache_rest(request, request.num_computed_tokens)
            for group in self.groups:
                if not is_sound:
                    group.forget_own(request)
                group.free(request)
        request.block_ids = ()
        request.num_cached_blocks = []

    def forget_blocks(self, request: Request, num_tokens: int) -> None:
        """Make the cached blocks behind the first `num_tokens` tokens of a request unknown again.

        Nobody else may use them.
        """
        num_full = num_tokens // self.block_size
        for group in self.groups:
            if request.num_cached_blocks[group.group_id] > num_full:
                group.forget(request, num_full)

    def record_lookup(self, request: Request, hit: PrefixHit) -> None:
        """Count an admission's look-up in the prefix cache."""
        if self.enable_caching and request.block_hashes is not None:
            self._lookups.record(request, hit)

    def drop_lookup(self, request: Request) -> None:
        """Do not expect the look-up of a request that has ended before its first admission."""
        if self.enable_caching and request.block_hashes is not None:
            self._lookups.drop(request)

    def append_slot(self, request: Request, num_computed: int) -> tuple[list[list[int]], int]:
        """`allocate_slots` for one decode token, and `quiet_tokens` after it.

        Made short, since it runs twice a block and request. A free block must have been counted.

        Args:
            request: A decoding request.
            num_computed: Its computed tokens.

        Returns:
            (its new blocks, NO_BLOCKS for none; decode tokens, that one included, that can be
            scheduled before it may change the cache again)
        """
        if self._has_window:
            blocks = self.allocate_slots(request, 1)
            assert blocks is not None, "free blocks were counted before"
            return blocks, self.quiet_tokens(request)
        size = self.block_size
        table = request.block_ids[0]
        new_blocks = NO_BLOCKS
        quiet = len(table) * size - num_computed
        if not quiet:
            block = self.pool.get_new_block()
            table.append(block)
            new_blocks = [[block]]
            quiet = size
        if self.enable_caching and request.block_hashes is not None:
            num_cached = request.num_cached_blocks[0]
            if self._caches_late and num_cached >= request.block_hashes.num_shareable:
                return new_blocks, quiet
            until_full = (num_cached + 1) * size - num_computed - 1
            if until_full <= 0 and (num_cached + 1) * size <= request.num_tokens:
                self.groups[0].cache_next_block(request, request.block_hashes)
                until_full += size
            if until_full < quiet:
                quiet = until_full
        return new_blocks, quiet

    def quiet_tokens(self, request: Request) -> int:
        """Decode tokens that can be scheduled before this request may change the cache.

        With steps in flight a change can come later than this says, never earlier.
        """
        computed = request.num_computed_tokens
        size = self.block_size
        quiet = len(request.block_ids[0]) * size - computed
        hashes = request.block_hashes
        if self.enable_caching and hashes is not None:
            num_cached = request.num_cached_blocks[0]
            if not self._caches_late or num_cached < hashes.num_shareable:
                quiet = min(quiet, (num_cached + 1) * size - computed - 1)
        if self._has_window:
            quiet = min(quiet, *(group.quiet_tokens(request) for group in self.groups))
        return quiet if quiet > 0 else 0

    def reset_prefix_cache(self) -> bool:
        """Forget all cached content; only possible, and True, while no request holds a block."""
        return self.pool.reset_prefix_cache()

    def block_states(self) -> bytes:
        """What blocks 1 to `pool.num_blocks` are, in one byte each; see `show_state`."""
        return self.pool.block_states()

    def check_integrity(self, requests: Iterable[Request]) -> None:
        """Raise AssertionError unless the tables of `requests` explain every reference."""
        check_integrity(self.pool, requests)
