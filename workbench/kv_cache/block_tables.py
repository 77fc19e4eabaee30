"""The block tables of requests, one for each group: how many blocks they take, and how they grow.

Knows the groups and their pool. What may be cached, and how many blocks must stay free, it does not
know.
"""

from collections.abc import Sequence

from workbench.kv_cache.block_pool import BlockPool
from workbench.kv_cache.kv_cache_group import KVCacheGroup
from workbench.kv_cache.prefix_hit import PrefixHit
from workbench.kv_cache.run_pool import RunPool
from workbench.request import Request


class BlockTables:
    """The tables of one KV cache's requests.

    Args:
        pool: Where blocks come from.
        groups: One table each.
        block_size: Tokens a block.
    """

    def __init__(
        self, pool: BlockPool | RunPool, groups: Sequence[KVCacheGroup], block_size: int
    ) -> None:
        self._pool = pool
        self._groups = groups
        self._block_size = block_size

    def most_blocks(self, num_tokens: int) -> int:
        """Most blocks that a request of `num_tokens` tokens ever holds at once."""
        num_blocks = -(-num_tokens // self._block_size)
        return sum(group.admission_cap(num_blocks) for group in self._groups)

    def num_needed(
        self,
        request: Request,
        num_tokens: int,
        hit: PrefixHit,
        num_computed_tokens: int,
        cap: bool = False,
    ) -> int:
        """Free blocks that slots for a request's first `num_tokens` tokens take.

        Args:
            request: The request.
            num_tokens: Tokens that need a slot in all.
            hit: Cached blocks about to be adopted.
            num_computed_tokens: Tokens computed, those of the hit included.
            cap: Count in each group only what the request ever holds at once.
        """
        needed = 0
        for group, blocks in zip(self._groups, hit.blocks, strict=True):
            tokens = num_tokens
            if cap:
                num_blocks = -(-num_tokens // self._block_size)
                tokens = group.admission_cap(num_blocks) * self._block_size
            needed += group.num_blocks_to_allocate(request, tokens, blocks, num_computed_tokens)
        return needed

    def start(self, request: Request, hit: PrefixHit, num_computed_tokens: int) -> None:
        """Begin a request's tables with the blocks of a prefix hit."""
        request.block_ids = [[] for _ in self._groups]
        request.num_cached_blocks = [0] * len(self._groups)
        if hit.num_tokens:
            for group, blocks in zip(self._groups, hit.blocks, strict=True):
                group.adopt(request, blocks, num_computed_tokens)

    def extend(self, request: Request, num_tokens: int) -> list[list[int]]:
        """Take new blocks until `num_tokens` tokens have slots; the new blocks of each group."""
        num_required = -(-num_tokens // self._block_size)
        new_blocks = []
        for table in request.block_ids:
            num_new = num_required - len(table)
            blocks = self._pool.get_new_blocks(num_new) if num_new > 0 else []
            table += blocks
            new_blocks.append(blocks)
        return new_blocks
