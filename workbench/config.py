"""What a researcher may set: frozen configs with vLLM's field names, checked when they are built.

One dataclass is one Hydra group and one constructor argument. The defaults live here only.
"""

import math
from dataclasses import dataclass
from typing import Any

from workbench.errors import ConfigError

POLICIES = ("fcfs", "priority")
PREEMPTION_MODES = ("recompute", "swap")
HASH_ALGORITHMS = ("blake2b", "sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Limits and rules of one scheduler.

    Attributes:
        max_num_seqs: Most requests in a batch.
        max_num_batched_tokens: Token budget of a step.
        max_model_len: Most tokens of a request, prompt and answer; None: the model's own limit.
        enable_chunked_prefill: A prompt may be computed over several steps.
        long_prefill_token_threshold: Most tokens of one request in a step; 0 switches it off. It
            does not bind a request that is alone.
        long_prefill_token_threshold_adaptive: Raise that limit to an equal share of the budget.
        policy: "fcfs" or "priority": the queue and the victim that vLLM pairs under that name. A
            queue or a victim policy given on its own takes precedence.
        scheduler_reserve_full_isl: Admit a request only if its whole sequence fits the free blocks.
        watermark: Share of the blocks, in [0, 1), that admissions leave free.
        max_num_active_seqs: Most running requests, where that is to be below max_num_seqs.
        prefill_schedule_interval: Steps between two steps that carry prompt tokens.
        async_scheduling: Schedule a step before the results of the one before it are known.
        num_speculative_tokens: Draft tokens proposed after every sampled token.
        preemption_mode: "recompute" drops a victim's KV; "swap" keeps it in host memory.
    """

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int | None = None
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    long_prefill_token_threshold_adaptive: bool = False
    policy: str = "fcfs"
    scheduler_reserve_full_isl: bool = True
    watermark: float = 0.0
    max_num_active_seqs: int | None = None
    prefill_schedule_interval: int = 1
    async_scheduling: bool = False
    num_speculative_tokens: int = 0
    preemption_mode: str = "recompute"

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "max_num_seqs", "max_num_batched_tokens", "prefill_schedule_interval")
        at_least(self, 1, "max_model_len", "max_num_active_seqs")
        at_least(self, 0, "long_prefill_token_threshold", "num_speculative_tokens")
        if self.max_num_active_seqs is not None and self.max_num_active_seqs > self.max_num_seqs:
            raise ConfigError(
                f"max_num_active_seqs={self.max_num_active_seqs} exceeds "
                f"max_num_seqs={self.max_num_seqs}: lower the first or raise the second"
            )
        if not 0.0 <= self.watermark < 1.0:
            raise ConfigError(
                f"watermark={self.watermark} must be in [0, 1): a share of all blocks"
            )
        one_of(self, "policy", POLICIES)
        one_of(self, "preemption_mode", PREEMPTION_MODES)
        if self.num_speculative_tokens and self.preemption_mode == "swap":
            raise ConfigError(
                "preemption_mode=swap does not work with num_speculative_tokens > 0: "
                "use preemption_mode=recompute"
            )
        if self.num_speculative_tokens >= self.max_num_batched_tokens:
            raise ConfigError(
                f"max_num_batched_tokens={self.max_num_batched_tokens} holds no sampled token "
                f"beside num_speculative_tokens={self.num_speculative_tokens}: raise the budget"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """The KV cache of one replica.

    Attributes:
        block_size: Tokens a block.
        num_gpu_blocks_override: Usable blocks; None: as many as the memory holds.
        enable_prefix_caching: Keep blocks after their request for prompts with the same prefix.
        gpu_memory_utilization: Share of the device's memory the server may use, in (0, 1].
        sliding_window: Tokens of attention of every layer; None: full attention.
        hybrid_window: Tokens of attention of a second group of layers beside a full-attention
            group; both draw on the same blocks.
        swap_space_gib: Host memory for swapped requests, GiB.
        prefix_caching_hash_algo: Hash of the blocks of requests that carry real tokens.
    """

    block_size: int = 16
    num_gpu_blocks_override: int | None = None
    enable_prefix_caching: bool = True
    gpu_memory_utilization: float = 0.9
    sliding_window: int | None = None
    hybrid_window: int | None = None
    swap_space_gib: float = 4.0
    prefix_caching_hash_algo: str = "blake2b"

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "block_size", "num_gpu_blocks_override")
        at_least(self, 2, "sliding_window", "hybrid_window")
        at_least(self, 0, "swap_space_gib")
        if not 0.0 < self.gpu_memory_utilization <= 1.0:
            raise ConfigError(
                f"gpu_memory_utilization={self.gpu_memory_utilization} must be in (0, 1]"
            )
        one_of(self, "prefix_caching_hash_algo", HASH_ALGORITHMS)
        if self.sliding_window is not None and self.hybrid_window is not None:
            raise ConfigError(
                f"sliding_window={self.sliding_window} and hybrid_window={self.hybrid_window} "
                "exclude each other: all layers slide, or only a second group does"
            )

    @property
    def has_window(self) -> bool:
        """Whether any layer attends to a window only."""
        return self.sliding_window is not None or self.hybrid_window is not None


def check_types(config: Any) -> None:
    """Refuse a field whose value is not of its annotated type, or not finite, by name."""
    for name, field in config.__dataclass_fields__.items():
        value = getattr(config, name)
        allowed = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}
        base, _, rest = str(getattr(field.type, "__name__", field.type)).partition(" | ")
        kind = {"int": int, "float": float, "bool": bool, "str": str}.get(base)
        if kind is None or (value is None and rest == "None"):
            continue
        if not isinstance(value, allowed[kind]) or (kind is not bool and isinstance(value, bool)):
            raise ConfigError(f"{name}={value!r} must be of type {base}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name}={value} must be a finite number")


def at_least(config: Any, minimum: float, *names: str) -> None:
    """Refuse a field below its minimum; None passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not minimum <= value < math.inf:
            raise ConfigError(f"{name}={value} must be at least {minimum}")


def one_of(config: Any, name: str, choices: tuple[str, ...]) -> None:
    """Refuse a field that is not one of its choices."""
    value = getattr(config, name)
    if value not in choices:
        raise ConfigError(f"{name}={value!r} must be one of {', '.join(choices)}")
