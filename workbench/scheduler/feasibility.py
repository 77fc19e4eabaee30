"""What can never work: settings that contradict each other, and requests too long to ever run."""

from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError
from workbench.kv_cache.kv_cache_manager import KVCacheManager
from workbench.request import Request
from workbench.scheduler.batch_policy import BatchPolicy


def check_settings(
    config: SchedulerConfig, cache_config: CacheConfig, num_blocks: int, batch_policy: BatchPolicy
) -> int:
    """Refuse settings that contradict each other; the model length."""
    max_model_len = config.max_model_len
    if max_model_len is None:
        raise ConfigError("max_model_len=None: set it, or take the model's max_position_embeddings")
    if num_blocks < 1:
        raise ConfigError(f"num_blocks={num_blocks}: the KV cache needs at least 1 block")
    whole = batch_policy.whole_prompts or not config.enable_chunked_prefill
    if whole and config.max_num_batched_tokens < max_model_len:
        raise ConfigError(
            f"max_num_batched_tokens={config.max_num_batched_tokens} is below "
            f"max_model_len={max_model_len}, but prompts are not chunked: raise the budget, lower "
            "max_model_len (scheduler=whole_prompts sets both), or chunk prompts "
            "(enable_chunked_prefill=true, batch_policy=unified)"
        )
    if batch_policy.splits_prompts and not config.enable_chunked_prefill:
        raise ConfigError(
            f"enable_chunked_prefill=false contradicts {type(batch_policy).__name__}, which splits "
            "prompts: set it to true, or choose another batch policy"
        )
    if cache_config.has_window and config.preemption_mode == "swap":
        raise ConfigError(
            "preemption_mode=swap works with full attention only: unset sliding_window and "
            "hybrid_window, or use preemption_mode=recompute"
        )
    return max_model_len


def why_ignored(request: Request, max_model_len: int, cache: KVCacheManager) -> str | None:
    """Why this request can never run, in one line; None if it can."""
    num_tokens = request.num_prompt_tokens
    if num_tokens < 1 or request.max_tokens < 1:
        return (
            f"request {request.request_id!r} has num_prompt_tokens={num_tokens} and "
            f"max_tokens={request.max_tokens}: both must be at least 1"
        )
    if num_tokens >= max_model_len:
        return (
            f"request {request.request_id!r}: a prompt of {num_tokens} tokens and one output "
            f"token exceed max_model_len={max_model_len}: shorten it or raise the limit"
        )
    if not cache.fits_alone(request, num_tokens):
        return (
            f"request {request.request_id!r}: a prompt of {num_tokens} tokens exceeds the "
            f"whole KV cache of {cache.pool.num_blocks} blocks of {cache.block_size} tokens: "
            "shorten it or give the cache more blocks"
        )
    return None


def why_truncated(request: Request, max_model_len: int) -> str | None:
    """Why the answer of a finished request is shorter than wanted, in one line; None if not."""
    got, wanted = request.num_output_tokens, request.max_tokens
    if request.finish_reason != "length" or got >= wanted:
        return None
    return (
        f"the answer was cut at {got} of {wanted} tokens: with a prompt of "
        f"{request.num_prompt_tokens} they exceed max_model_len={max_model_len}: "
        "raise the limit or ask for fewer tokens"
    )


def why_outgrown(request: Request, cache: KVCacheManager) -> str:
    """Why a request that has run cannot go on, in one line."""
    return (
        f"{request.num_tokens} tokens do not fit the whole KV cache of {cache.pool.num_blocks} "
        f"blocks of {cache.block_size} tokens: give the cache more blocks, or the request "
        "fewer tokens"
    )
