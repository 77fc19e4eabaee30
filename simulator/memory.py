"""How many KV blocks fit on a GPU beside the weights.

Knows capacities in bytes. It does not know which request holds which block.

    blocks = (memory x utilisation - weights - activations - other) / bytes of a block

A hybrid cache has one group of blocks for each kind of attention. The groups hold equally many
layers and share one pool, so a block holds the layers of one group only (vLLM,
`kv_cache_planning.py`: the layers are dealt into groups of equal size, the last one padded).

Activations are the peak of a profiling run: the larger of the widest point of a layer with the
whole token budget, and the sampler with logits of every sequence. Other is the driver's context,
captured graphs and communication buffers.
"""

from dataclasses import dataclass
from math import ceil

from simulator.bounds import check_count
from simulator.hardware import GIB, HardwareConfig
from simulator.hf_config import DTYPE_BYTES
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError

# logits in 16 and 32 bits, the sorted copy, its 64-bit indices, the probabilities
SAMPLER_BYTES_PER_LOGIT = 2 + 4 + 4 + 8 + 4
# context and graphs; with it vLLM 0.19's block count for an 8B model on 24 GB is met within 1 %
CONTEXT_GIB = 0.5
COMMUNICATION_GIB = 0.4


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes of one GPU's memory by use, and the KV blocks that remain."""

    total: float
    usable: float
    weights: float
    activations: float
    other: float
    kv_cache: float
    block_bytes: float
    num_blocks: int


def num_kv_groups(hybrid_window: int | None) -> int:
    """Groups of layers that draw on the same blocks: two with a hybrid cache, else one."""
    return 1 if hybrid_window is None else 2


def block_bytes(
    model: ModelConfig, parallel: ParallelConfig, block_size: int = 16, num_groups: int = 1
) -> float:
    """Bytes of one KV block on the fullest GPU.

    Args:
        block_size: Tokens a block.
        num_groups: Groups that the layers are dealt into; a block belongs to one of them.

    Raises:
        ConfigError: Fewer layers than groups, or a count below 1.
    """
    check_count("cache.block_size", block_size)
    layers = model.layers_per_stage(parallel)
    if not 1 <= num_groups <= layers:
        raise ConfigError(
            f"{num_groups} KV cache groups need as many layers on every GPU, and {model.name} has"
            f" {layers}: set cache.hybrid_window=null or lower pipeline_parallel_size"
        )
    share = ceil(layers / num_groups) / layers
    return model.kv_bytes_per_token(parallel) * block_size * share


def activation_bytes(
    model: ModelConfig, parallel: ParallelConfig, max_num_batched_tokens: int, max_num_seqs: int
) -> float:
    """Peak of activations on one GPU.

    A layer holds hidden state and residual, and at its widest the gate, up and gated products of
    every token (of every chosen expert with a mixture of experts).
    """
    width = 3 * model.intermediate_size / parallel.tensor_parallel_size
    if model.num_experts:
        slices = 1 if parallel.enable_expert_parallel else parallel.tensor_parallel_size
        expert = 3 * model.moe_intermediate_size / slices + model.hidden_size
        share = 1 / parallel.tensor_parallel_size if parallel.enable_expert_parallel else 1.0
        width = max(width, model.num_experts_per_tok * expert * share)
    layer = max_num_batched_tokens * (2 * model.hidden_size + width) * DTYPE_BYTES["bfloat16"]
    logits = min(max_num_seqs, max_num_batched_tokens) * model.vocab_size
    return max(layer, logits * float(SAMPLER_BYTES_PER_LOGIT))


def plan_memory(
    model: ModelConfig,
    hardware: HardwareConfig,
    parallel: ParallelConfig,
    scheduler: SchedulerConfig,
    cache: CacheConfig,
) -> MemoryPlan:
    """Divide the memory of the fullest GPU.

    Args:
        scheduler: The token budget of a step, and the most rows of logits in one.
        cache: Block size, the share of the memory that may be used, and whether the layers are in
            two groups.

    Raises:
        ConfigError: Not one KV block fits beside the weights.
    """
    model.check_parallel(parallel)
    total = hardware.memory_bytes
    usable = total * cache.gpu_memory_utilization
    weights = model.weight_bytes(parallel)
    activations = activation_bytes(
        model, parallel, scheduler.max_num_batched_tokens, scheduler.max_num_seqs
    )
    several = parallel.world_size * parallel.data_parallel_size > 1
    other = (CONTEXT_GIB + (COMMUNICATION_GIB if several else 0.0)) * GIB
    groups = num_kv_groups(cache.hybrid_window)
    one_block = block_bytes(model, parallel, cache.block_size, groups)
    kv_cache = usable - weights - activations - other
    num_blocks = int(kv_cache // one_block)
    plan = MemoryPlan(total, usable, weights, activations, other, kv_cache, one_block, num_blocks)
    if num_blocks < 1:
        raise _does_not_fit(plan, model, hardware, parallel, cache.gpu_memory_utilization)
    return plan


def _does_not_fit(
    plan: MemoryPlan,
    model: ModelConfig,
    hardware: HardwareConfig,
    parallel: ParallelConfig,
    gpu_memory_utilization: float,
) -> ConfigError:
    return ConfigError(
        f"{model.name} does not fit {hardware.name}: weights {plan.weights / GIB:.1f} GiB +"
        f" activations {plan.activations / GIB:.1f} GiB + other {plan.other / GIB:.1f} GiB a GPU"
        f" leave no KV block in {plan.usable / GIB:.1f} GiB ({hardware.memory_gb:g} GiB x"
        f" {gpu_memory_utilization:g}): raise tensor_parallel_size"
        f" (now {parallel.tensor_parallel_size}), or take a larger GPU or a smaller model"
    )


def num_kv_blocks(
    model: ModelConfig,
    hardware: HardwareConfig,
    parallel: ParallelConfig,
    scheduler: SchedulerConfig,
    cache: CacheConfig,
) -> int:
    """KV blocks of a replica: as many as the settings say, else as many as `plan_memory` finds."""
    if cache.num_gpu_blocks_override is not None:
        return cache.num_gpu_blocks_override
    return plan_memory(model, hardware, parallel, scheduler, cache).num_blocks
