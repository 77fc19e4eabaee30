"""Which pool and which groups a KV cache is made of."""

from collections.abc import Sequence

from workbench.config import CacheConfig
from workbench.kv_cache.block_pool import BlockPool
from workbench.kv_cache.eviction import EvictionPolicy, LRUEviction
from workbench.kv_cache.kv_cache_group import (
    FullAttentionGroup,
    KVCacheGroup,
    SlidingWindowGroup,
)
from workbench.kv_cache.run_group import RunGroup
from workbench.kv_cache.run_pool import RunPool


def make_layout(
    config: CacheConfig,
    num_blocks: int,
    max_model_len: int,
    max_in_flight_tokens: int,
    eviction: EvictionPolicy,
    use_runs: bool,
) -> tuple[BlockPool | RunPool, Sequence[KVCacheGroup]]:
    """The pool of a cache and its groups.

    Full attention with vLLM's eviction moves blocks in runs, if it may; anything else one by one.

    Args:
        config: Block size and windows.
        num_blocks: Usable blocks.
        max_model_len: Most tokens of a request.
        max_in_flight_tokens: Most tokens scheduled and not yet returned.
        eviction: Order in which cached blocks are given up.
        use_runs: See KVCacheManager.
    """
    size = config.block_size
    if use_runs and not config.has_window and type(eviction) is LRUEviction:
        run_pool = RunPool(num_blocks)
        return run_pool, [RunGroup(size, run_pool)]
    pool = BlockPool(num_blocks, eviction)

    def window_group(group_id: int, window: int) -> SlidingWindowGroup:
        return SlidingWindowGroup(group_id, size, pool, window, max_in_flight_tokens, max_model_len)

    if config.sliding_window is not None:
        return pool, [window_group(0, config.sliding_window)]
    groups = [FullAttentionGroup(0, size, pool)]
    if config.hybrid_window is not None:
        groups.append(window_group(1, config.hybrid_window))
    return pool, groups
