"""What follows for the scheduler from several groups together: lengths, the token budget, sizes.

Knows which settings contradict each other although each is sound by itself, and which value a
setting takes that nobody has chosen. Every error names both settings.
"""

from dataclasses import replace

from omegaconf import DictConfig

from experiments.schema import is_chosen, settings
from simulator.model_config import ModelConfig
from workbench.config import SchedulerConfig
from workbench.errors import ConfigError
from workbench.scheduler.batch_policy import BatchPolicy, SarathiBatching

MAX_REPLICAS = 10_000
# a block is a Python object of about 60 bytes before its first use and of some 300 bytes after it
MAX_BLOCKS = 50_000_000


def scheduler_config(
    config: DictConfig, model: ModelConfig, policy: BatchPolicy
) -> SchedulerConfig:
    """The scheduler's settings with the values that follow from the model and the batch policy.

    `max_model_len` is the model's own where none is given. A token budget that nobody has chosen is
    vLLM's: 2,048, or `max_model_len` where prompts are not chunked. Raises ConfigError.
    """
    scheduler: SchedulerConfig = settings(config, "scheduler")
    max_model_len = _max_model_len(scheduler, model)
    scheduler = replace(scheduler, max_model_len=max_model_len)
    if needs_whole_prompts(scheduler, policy) and not is_chosen(config, "scheduler"):
        budget = max(scheduler.max_num_batched_tokens, max_model_len)
        scheduler = replace(scheduler, max_num_batched_tokens=budget)
    _check_budget(scheduler, policy)
    return scheduler


def needs_whole_prompts(scheduler: SchedulerConfig, policy: BatchPolicy) -> bool:
    """Whether a prompt is computed in one step, whatever its length."""
    return policy.whole_prompts or not scheduler.enable_chunked_prefill


def _max_model_len(scheduler: SchedulerConfig, model: ModelConfig) -> int:
    limit = model.max_position_embeddings
    if scheduler.max_model_len is None:
        return limit
    if scheduler.max_model_len > limit:
        raise ConfigError(
            f"scheduler.max_model_len={scheduler.max_model_len} exceeds the {limit} positions of "
            f"{model.name}: lower it, or leave it null for the model's own"
        )
    return scheduler.max_model_len


def _check_budget(scheduler: SchedulerConfig, policy: BatchPolicy) -> None:
    budget, max_model_len = scheduler.max_num_batched_tokens, scheduler.max_model_len
    name = f"scheduler.max_num_batched_tokens={budget}"
    if budget < scheduler.max_num_seqs:
        raise ConfigError(
            f"{name} is below scheduler.max_num_seqs={scheduler.max_num_seqs}, and every running "
            "request needs a token in a step: raise the first or lower the second"
        )
    if needs_whole_prompts(scheduler, policy) and budget < (max_model_len or 0):
        raise ConfigError(
            f"{name} is below scheduler.max_model_len={max_model_len}, but prompts are not "
            "chunked: raise the budget or leave it null, lower max_model_len, or chunk prompts "
            "(scheduler.enable_chunked_prefill=true batch_policy=unified)"
        )
    if isinstance(policy, SarathiBatching) and policy.chunk_size > budget:
        raise ConfigError(
            f"batch_policy.chunk_size={policy.chunk_size} exceeds {name}, which would cut it: "
            "lower the first or raise the second"
        )


def check_size(replicas: int, num_kv_blocks: int, num_host_blocks: int) -> None:
    """Refuse what would not fit the memory of the machine that runs the simulation.

    Raises ConfigError naming the setting that is out of proportion.
    """
    if replicas > MAX_REPLICAS:
        raise ConfigError(
            f"cluster.replicas={replicas} exceeds {MAX_REPLICAS}: each is a scheduler of its "
            "own in memory; lower it"
        )
    limit = MAX_BLOCKS // replicas
    each = f" on each of {replicas} replicas" if replicas > 1 else ""
    for name, blocks, cure in (
        ("cache.num_gpu_blocks_override", num_kv_blocks, "set it lower, or raise cache.block_size"),
        ("cache.swap_space_gib", num_host_blocks, "set it lower, or raise cache.block_size"),
    ):
        if blocks > limit:
            raise ConfigError(
                f"{name}: {blocks} KV blocks{each} exceed the {limit} that the simulator keeps in "
                f"memory (300 bytes a block): {cure}"
            )


def notes(config: DictConfig, scheduler: SchedulerConfig, policy: BatchPolicy) -> list[str]:
    """What was decided for the user and is not to be seen in the config, a line each."""
    default = settings(config, "scheduler").max_num_batched_tokens
    if scheduler.max_num_batched_tokens == default:
        return []
    why = f"{type(policy).__name__} splits no prompt"
    if not policy.whole_prompts:
        why = "scheduler.enable_chunked_prefill=false"
    return [
        f"scheduler.max_num_batched_tokens={scheduler.max_num_batched_tokens}: it was not set, and "
        f"the longest prompt must fit a step ({why})"
    ]
