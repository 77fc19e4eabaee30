"""Whether the block tables of all requests explain what a pool holds in use."""

from collections.abc import Iterable

from workbench.kv_cache.block_pool import NULL_BLOCK, BlockPool
from workbench.kv_cache.run_pool import RunPool
from workbench.request import Request


def check_integrity(pool: BlockPool | RunPool, requests: Iterable[Request]) -> None:
    """Raise AssertionError where pool and tables disagree.

    Args:
        pool: The blocks.
        requests: Every request that may hold one.
    """
    pool.check_integrity()
    references = [0] * (pool.num_blocks + 1)
    for request in requests:
        for table in request.block_ids:
            own = [block for block in table if block != NULL_BLOCK]
            assert len(own) == len(set(own)), f"{request} holds a block twice"
            for block in own:
                references[block] += 1
        if isinstance(pool, RunPool):
            _check_runs(pool, request)
    num_shared = sum(count - 1 for count in references if count)
    assert num_shared == pool.num_shared_refs, "shared blocks are counted wrongly"
    if isinstance(pool, BlockPool):
        assert references[1:] == pool.ref_counts[1:], "reference counts and tables disagree"
    else:
        unused = [b for b in range(1, pool.num_blocks + 1) if not references[b]]
        assert unused == sorted(pool.free_line()), "a block has leaked, or a used one is free"


def _check_runs(pool: RunPool, request: Request) -> None:
    held = request.held_runs
    if held is None:
        assert not any(request.num_cached_blocks), f"{request} has cached blocks in no run"
        return
    place = 0
    for run in held.runs:
        assert pool.knows(run), f"{request} uses a run that cannot be found"
        assert held in run.holders, f"{request} is not known to use a run"
        assert run.start == place, f"{request} holds runs with a gap"
        place += len(run.blocks)
    blocks = [block for run in held.runs for block in run.blocks]
    assert place == request.num_cached_blocks[0], f"{request} counts other cached blocks"
    assert blocks == request.block_ids[0][:place], f"{request} has another table than its runs"
