"""A request thrown out in the step that was to compute its blocks, and who may find them."""

import pytest

from tests.workbench.scheduler.small_schedulers import step
from workbench.config import CacheConfig, SchedulerConfig
from workbench.kv_cache.block_hash import KnownBlockHashes, PrivateBlockHashes
from workbench.request import Request
from workbench.scheduler.preemption import LowestPriority
from workbench.scheduler.scheduler import Scheduler

KEYS = ["abcdefgh"[: i + 1] for i in range(8)]


@pytest.mark.parametrize("use_runs", [True, False])
@pytest.mark.parametrize(("forgets", "num_found"), [(False, 20), (True, 16)])
def test_uncomputed_blocks_are_found_unless_they_are_forgotten(
    use_runs: bool, forgets: bool, num_found: int
) -> None:
    scheduler = Scheduler(
        SchedulerConfig(
            max_model_len=64,
            max_num_batched_tokens=32,
            long_prefill_token_threshold=8,
            scheduler_reserve_full_isl=False,
        ),
        CacheConfig(block_size=4),
        8,
        victim_policy=LowestPriority(),
        use_runs=use_runs,
        forget_uncomputed_blocks=forgets,
    )
    patient = Request("patient", 32, 9, priority=9, block_hashes=KnownBlockHashes(0, KEYS, 8))
    urgent = Request("urgent", 7, 9, priority=0, block_hashes=PrivateBlockHashes(1))
    for request in (patient, urgent):
        scheduler.add_request(request, 0.0)
    step(scheduler)
    assert step(scheduler).num_scheduled_tokens == {"patient": 8, "urgent": 1}
    assert patient.num_computed_tokens == 16
    # The patient one gets the last two blocks, then the urgent one finds none: it takes one of
    # them, and the other, of tokens 17 to 20, stays as it was: cached in vLLM, never computed.
    output = step(scheduler)
    assert output.preempted_req_ids == ["patient"]
    assert output.num_scheduled_tokens == {"urgent": 1}
    assert scheduler.kv_cache_manager.num_cached_prefix_tokens(KEYS) == num_found
