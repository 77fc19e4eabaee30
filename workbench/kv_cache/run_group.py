"""The group of full-attention layers whose blocks are moved in runs (see RunPool)."""

from workbench.kv_cache.block_hash import BlockHashes
from workbench.kv_cache.block_run import HeldRuns, RunHit
from workbench.kv_cache.kv_cache_group import KVCacheGroup
from workbench.kv_cache.run_pool import RunPool
from workbench.request import Request


class RunGroup(KVCacheGroup):
    """Layers that attend to every token, the only group of their cache.

    Args:
        block_size: Tokens a block.
        pool: Where blocks come from.
    """

    def __init__(self, block_size: int, pool: RunPool) -> None:
        super().__init__(0, block_size)
        self.pool = pool

    def find_longest_hit(self, hashes: BlockHashes, num_blocks: int) -> list[int]:
        return self.pool.find(hashes.chain(num_blocks), num_blocks)

    def count_unreferenced(self, hit: list[int], start: int) -> int:
        assert isinstance(hit, RunHit)
        return hit.num_unreferenced

    def adopt(self, request: Request, hit: list[int], num_computed_tokens: int) -> None:
        assert isinstance(hit, RunHit)
        assert request.block_hashes is not None
        request.held_runs = HeldRuns(request.block_hashes.chain(len(hit)))
        self.pool.adopt(request.held_runs, hit)
        request.block_ids[0].extend(hit)
        request.num_cached_blocks[0] = len(hit)

    def cache_full_blocks(self, request: Request, hashes: BlockHashes, num_full: int) -> None:
        num_cached = request.num_cached_blocks[0]
        chain = hashes.chain(num_full)
        if request.held_runs is None:
            request.held_runs = HeldRuns(chain)
        blocks = request.block_ids[0][num_cached:num_full]
        self.pool.cache_full_blocks(request.held_runs, num_cached, blocks)
        request.num_cached_blocks[0] = num_full

    def cache_next_block(self, request: Request, hashes: BlockHashes) -> None:
        place = request.num_cached_blocks[0]
        held = request.held_runs
        block = request.block_ids[0][place]
        if held is None or not self.pool.grow(held, hashes.chain(place + 1)[place], block):
            self.cache_full_blocks(request, hashes, place + 1)
        else:
            request.num_cached_blocks[0] = place + 1

    def forget(self, request: Request, num_full: int) -> None:
        assert request.held_runs is not None
        self.pool.forget_end(request.held_runs, request.num_cached_blocks[0] - num_full)
        request.num_cached_blocks[0] = num_full

    def num_shared_blocks(self, request: Request) -> int:
        num_shared = place = 0
        for run in request.held_runs.runs if request.held_runs else ():
            place += len(run.blocks)
            if len(run.holders) > 1:
                num_shared = place
        return num_shared

    def free(self, request: Request) -> None:
        table = request.block_ids[0]
        self.pool.free_blocks(request.held_runs, table[request.num_cached_blocks[0] :])
        request.held_runs = None
