"""How many KV blocks there are: what the user says, or what is left when a full step has run.

Knows memory. Does not know which request will use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.attention.backend import backend_class
from engine.config import EngineConfig
from engine.errors import OutOfMemoryError
from engine.kv_cache import GIB, KVCacheLayout
from engine.loader import available_bytes, is_out_of_memory
from engine.models.causal_lm import CausalLM
from engine.profile_batch import profile_batch
from engine.sampler import Sampler
from engine.sampling_batch import SamplingBatch
from workbench.config import SchedulerConfig
from workbench.errors import ConfigError
from workbench.kv_cache.kv_cache_group import KVCacheGroup
from workbench.sampling_params import SamplingParams

DEFAULT_CPU_BYTES = 4 * GIB
# CUDA graphs are captured after the cache is allocated; their pool is shared by all sizes.
GRAPH_RESERVE_BYTES = GIB // 2


@dataclass(frozen=True, slots=True)
class Measurement:
    """Device memory around a full step, bytes.

    Attributes:
        total: Of the device.
        elsewhere: In use, but not by torch: the driver's context, other processes.
        peak: Most that torch held: weights, and the activations of a full step.
    """

    total: int
    elsewhere: int
    peak: int


def num_kv_blocks(
    config: EngineConfig,
    scheduler_config: SchedulerConfig,
    model: CausalLM,
    layout: KVCacheLayout,
    device: torch.device,
) -> int:
    """Usable blocks (the null block comes on top).

    Raises:
        ConfigError: Not one block fits.
        OutOfMemoryError: Not even a step without a cache fits.
    """
    override = config.cache_config.num_gpu_blocks_override
    if override is not None:
        return override
    if config.kv_cache_memory_bytes is not None:
        num_bytes = config.kv_cache_memory_bytes
    elif device.type == "cuda":
        num_bytes = _measured_bytes(config, scheduler_config, model, device)
    else:
        num_bytes = _cpu_bytes(config, scheduler_config, layout)
    num_blocks = num_bytes // layout.block_bytes - 1
    if num_blocks < 1:
        raise ConfigError(
            f"{max(num_bytes, 0) / GIB:.3f} GiB are left for the KV cache, and a block of "
            f"{layout.block_size} tokens takes {layout.block_bytes / GIB:.6f}: "
            + _cure(config, device)
        )
    return num_blocks


def check_capacity(
    config: EngineConfig,
    groups: Sequence[KVCacheGroup],
    num_blocks: int,
    max_model_len: int,
    layout: KVCacheLayout,
    device: torch.device,
) -> None:
    """Refuse a cache that cannot hold one request of `max_model_len` tokens.

    Raises:
        ConfigError: With the longest request that the cache holds.
    """

    def needed(num_tokens: int) -> int:
        blocks = -(-num_tokens // layout.block_size)
        return sum(group.admission_cap(blocks) for group in groups)

    if needed(max_model_len) <= num_blocks:
        return
    low, high = 0, max_model_len
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= num_blocks else (low, middle)
    size = layout.block_bytes
    raise ConfigError(
        f"a request of max_model_len={max_model_len} tokens needs {needed(max_model_len)} KV "
        f"blocks ({needed(max_model_len) * size / GIB:.3f} GiB), and the cache has {num_blocks} "
        f"({num_blocks * size / GIB:.3f} GiB), enough for an estimated max_model_len of {low}: "
        f"lower max_model_len, or {_cure(config, device)}"
    )


def _cure(config: EngineConfig, device: torch.device) -> str:
    if config.cache_config.num_gpu_blocks_override is not None:
        return "raise num_gpu_blocks_override"
    if config.kv_cache_memory_bytes is not None:
        return "raise kv_cache_memory_bytes"
    if device.type == "cuda":
        return "raise gpu_memory_utilization, or lower max_num_batched_tokens or max_num_seqs"
    if config.cpu_kvcache_space_gib is not None:
        return "raise cpu_kvcache_space_gib"
    return "set kv_cache_memory_bytes"


def _cpu_bytes(
    config: EngineConfig, scheduler_config: SchedulerConfig, layout: KVCacheLayout
) -> int:
    if config.cpu_kvcache_space_gib is not None:
        return int(config.cpu_kvcache_space_gib * GIB)
    assert scheduler_config.max_model_len is not None
    blocks_of_one = -(-scheduler_config.max_model_len // layout.block_size) + 1
    useful = (scheduler_config.max_num_seqs * blocks_of_one + 2) * layout.block_bytes
    available = available_bytes(torch.device("cpu"))
    limits = [useful, DEFAULT_CPU_BYTES, *([] if available is None else [available // 2])]
    return min(limits)


def _measured_bytes(
    config: EngineConfig,
    scheduler_config: SchedulerConfig,
    model: CausalLM,
    device: torch.device,
) -> int:
    """What gpu_memory_utilization allows, less what a full step needs."""
    found = measure(config, scheduler_config, model, device)
    allowed = int(found.total * config.cache_config.gpu_memory_utilization)
    reserve = 0 if config.enforce_eager else GRAPH_RESERVE_BYTES
    return allowed - found.elsewhere - found.peak - reserve


@torch.inference_mode()
def measure(
    config: EngineConfig,
    scheduler_config: SchedulerConfig,
    model: CausalLM,
    device: torch.device,
) -> Measurement:
    """Run the largest step there can be, without a cache, and look at the memory it took.

    Raises:
        OutOfMemoryError: It does not fit.
    """
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        _full_step(config, scheduler_config, model, device)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"a step of max_num_batched_tokens={scheduler_config.max_num_batched_tokens} tokens "
            "does not fit beside the weights: lower it, or max_num_seqs"
        ) from error
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return Measurement(total, total - free - torch.cuda.memory_reserved(device), peak)


def _full_step(
    config: EngineConfig,
    scheduler_config: SchedulerConfig,
    model: CausalLM,
    device: torch.device,
) -> None:
    """All tokens of the budget over all rows, attention to the null block, and every sampler."""
    batch = profile_batch(
        scheduler_config.max_num_batched_tokens, scheduler_config.max_num_seqs, device
    )
    block_size = config.cache_config.block_size
    layout = KVCacheLayout.of(model.attention_specs, block_size, model.embedding.weight.dtype)
    caches = layout.by_layer(layout.allocate(1, device))
    backend = backend_class(config.attention_backend, device)(
        model.attention_specs, model.cos_sin_cache, caches, block_size
    )
    token_ids = torch.zeros_like(batch.positions)
    hidden = model(token_ids, batch.positions, backend.build(batch))
    sampling = SamplingBatch(scheduler_config.max_num_seqs, model.vocab_size, device)
    num_rows = batch.num_rows
    for slot in range(num_rows):
        sampling.add(slot, str(slot), SamplingParams(top_p=0.9, top_k=50), [0], [])
    logits = model.compute_logits(hidden[-num_rows:])
    plan = sampling.plan(np.arange(num_rows), np.zeros(num_rows, dtype=np.int64))
    Sampler()(logits, plan)
