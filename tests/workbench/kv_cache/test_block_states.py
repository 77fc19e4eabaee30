"""The map of the KV blocks: the block tables explain it, and both pools draw the same one."""

from collections import Counter
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.workbench.random_world import World, run, worlds
from workbench.kv_cache.block_pool import BlockPool, show_state
from workbench.kv_cache.eviction import LRUEviction
from workbench.kv_cache.run_pool import RunPool
from workbench.outputs import SchedulerOutput
from workbench.scheduler.scheduler import Scheduler

SETTINGS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)


def maps_of(world: World, use_runs: bool) -> list[bytes]:
    """The map after every step, held against the tables of the running requests."""
    maps: list[bytes] = []

    def look(scheduler: Scheduler, made: SchedulerOutput | None) -> None:
        manager = scheduler.kv_cache_manager
        states = manager.block_states()
        users = Counter(b for r in scheduler.running for table in r.block_ids for b in table if b)
        assert len(states) == manager.pool.num_blocks
        assert {b for b, state in zip(count(1), states, strict=False) if state > 1} == set(users)
        assert all(states[block - 1] == 1 + n for block, n in users.items())
        if not world.cache["enable_prefix_caching"]:
            assert 1 not in states
        maps.append(states)

    run(world, look, use_runs=use_runs)
    return maps


@SETTINGS
@given(worlds())
def test_the_tables_explain_the_map_and_both_pools_agree(world: World) -> None:
    assert maps_of(world, use_runs=True) == maps_of(world, use_runs=False)


@pytest.mark.parametrize("pool", [RunPool(5), BlockPool(5, LRUEviction())])
def test_blocks_in_use_and_free_ones(pool: RunPool | BlockPool) -> None:
    assert pool.block_states() == bytes(5)
    pool.get_new_blocks(2)
    assert pool.block_states() == bytes([2, 2, 0, 0, 0])


def test_what_a_byte_says() -> None:
    assert [show_state(0, False), show_state(0, True)] == [0, 1]
    assert [show_state(n, True) for n in (1, 2, 254, 255, 9_999)] == [2, 3, 255, 255, 255]
