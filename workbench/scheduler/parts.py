"""What a scheduler is made of: its cache, vLLM's policies where none are given, and its shortcuts.

Reads settings. It knows no request, and decides no step.
"""

from workbench.config import CacheConfig, SchedulerConfig
from workbench.kv_cache.eviction import EvictionPolicy, LRUEviction
from workbench.kv_cache.kv_cache_manager import KVCacheManager
from workbench.scheduler.batch_policy import BatchPolicy
from workbench.scheduler.preemption import LastAdmitted, LowestPriority, VictimPolicy
from workbench.scheduler.request_queue import FCFSQueue, PriorityQueue, RequestQueue
from workbench.scheduler.state import SchedulerState


def default_queue(config: SchedulerConfig) -> RequestQueue:
    """The queue that vLLM names `config.policy`."""
    return PriorityQueue() if config.policy == "priority" else FCFSQueue()


def default_victim(config: SchedulerConfig) -> VictimPolicy:
    """The victim policy that vLLM pairs with that queue."""
    return LowestPriority() if config.policy == "priority" else LastAdmitted()


def make_cache(
    config: SchedulerConfig,
    cache_config: CacheConfig,
    num_blocks: int,
    max_model_len: int,
    depth: int,
    eviction: EvictionPolicy | None,
    use_runs: bool,
) -> KVCacheManager:
    """The KV cache of a scheduler with up to `depth` steps in flight."""
    return KVCacheManager(
        cache_config,
        num_blocks,
        max_model_len,
        max_in_flight_tokens=depth * config.max_num_batched_tokens,
        # An eviction policy that holds no block is false.
        eviction=LRUEviction() if eviction is None else eviction,
        watermark=config.watermark,
        # Tokens that are only promised, or guessed, could turn out not to fill a block.
        caches_late=not config.async_scheduling and not config.num_speculative_tokens,
        use_runs=use_runs,
    )


def cohort_is_exact(config: SchedulerConfig, batch_policy: BatchPolicy, depth: int) -> bool:
    """Whether keeping decodes together can change no decision."""
    return (
        not config.num_speculative_tokens
        # Results one step late need placeholders; deeper pipelines leave gaps between decodes.
        and depth == (2 if config.async_scheduling else 1)
        # Late results fill blocks between two decodes, where an admission could find them.
        and (not config.async_scheduling or batch_policy.decodes_first)
    )


def decodes_repeat(state: SchedulerState, batch_policy: BatchPolicy, depth: int) -> bool:
    """Whether the policies need not be asked about steps of nothing but decodes."""
    may_skip = batch_policy.repeats_decodes and not state.waiting.counts_service
    return depth == 1 and may_skip and state.use_cohort
