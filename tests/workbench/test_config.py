"""Settings: vLLM's defaults, and every refusal names the value, the limit and the cure."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError
from workbench.scheduler.batch_policy import (
    PrefillFirstBatching,
    SarathiBatching,
    StaticBatching,
    UnifiedBatching,
)
from workbench.scheduler.scheduler import Scheduler


def test_defaults_are_those_of_vllm() -> None:
    config = SchedulerConfig()
    assert (config.max_num_seqs, config.max_num_batched_tokens) == (256, 2048)
    assert config.enable_chunked_prefill
    assert config.policy == "fcfs"
    assert config.scheduler_reserve_full_isl
    assert config.watermark == 0.0
    assert CacheConfig().block_size == 16
    assert CacheConfig().gpu_memory_utilization == 0.9


@pytest.mark.parametrize(
    ("config", "name"), [(SchedulerConfig(), "max_num_seqs"), (CacheConfig(), "block_size")]
)
def test_settings_do_not_change(config: Any, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(config, name, 8)
    with pytest.raises(TypeError):
        type(config)(7)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (SchedulerConfig, {"max_num_seqs": 0}, "max_num_seqs=0 at least 1"),
        (SchedulerConfig, {"max_num_batched_tokens": -5}, "max_num_batched_tokens=-5 at least 1"),
        (SchedulerConfig, {"max_model_len": 0}, "max_model_len=0 at least 1"),
        (SchedulerConfig, {"max_num_active_seqs": 0}, "max_num_active_seqs=0 at least 1"),
        (
            SchedulerConfig,
            {"prefill_schedule_interval": 0},
            "prefill_schedule_interval=0 at least 1",
        ),
        (
            SchedulerConfig,
            {"long_prefill_token_threshold": -1},
            "long_prefill_token_threshold=-1 at least 0",
        ),
        (SchedulerConfig, {"num_speculative_tokens": -1}, "num_speculative_tokens=-1 at least 0"),
        (
            SchedulerConfig,
            {"max_num_active_seqs": 300},
            "max_num_active_seqs=300 max_num_seqs=256 lower raise",
        ),
        (SchedulerConfig, {"watermark": 1.0}, "watermark=1.0 [0, 1)"),
        (SchedulerConfig, {"watermark": float("nan")}, "watermark=nan finite"),
        (SchedulerConfig, {"policy": "lifo"}, "policy='lifo' fcfs, priority"),
        (SchedulerConfig, {"preemption_mode": "drop"}, "preemption_mode='drop' recompute, swap"),
        (
            SchedulerConfig,
            {"preemption_mode": "swap", "num_speculative_tokens": 2},
            "preemption_mode=swap num_speculative_tokens preemption_mode=recompute",
        ),
        (
            SchedulerConfig,
            {"max_num_batched_tokens": 3, "num_speculative_tokens": 3},
            "max_num_batched_tokens=3 num_speculative_tokens=3 raise the budget",
        ),
        (SchedulerConfig, {"max_num_seqs": "8"}, "max_num_seqs='8' int"),
        (SchedulerConfig, {"max_num_seqs": 8.0}, "max_num_seqs=8.0 int"),
        (SchedulerConfig, {"max_num_seqs": True}, "max_num_seqs=True int"),
        (SchedulerConfig, {"max_num_seqs": None}, "max_num_seqs=None int"),
        (SchedulerConfig, {"enable_chunked_prefill": 1}, "enable_chunked_prefill=1 bool"),
        (SchedulerConfig, {"max_model_len": "long"}, "max_model_len='long' int"),
        (SchedulerConfig, {"watermark": "0.1"}, "watermark='0.1' float"),
        (CacheConfig, {"block_size": 0}, "block_size=0 at least 1"),
        (CacheConfig, {"num_gpu_blocks_override": 0}, "num_gpu_blocks_override=0 at least 1"),
        (CacheConfig, {"sliding_window": 1}, "sliding_window=1 at least 2"),
        (CacheConfig, {"hybrid_window": 0}, "hybrid_window=0 at least 2"),
        (CacheConfig, {"swap_space_gib": -1.0}, "swap_space_gib=-1.0 at least 0"),
        (CacheConfig, {"gpu_memory_utilization": 0.0}, "gpu_memory_utilization=0.0 (0, 1]"),
        (CacheConfig, {"gpu_memory_utilization": 1.01}, "gpu_memory_utilization=1.01 (0, 1]"),
        (
            CacheConfig,
            {"prefix_caching_hash_algo": "md5"},
            "prefix_caching_hash_algo='md5' sha256 blake2b",
        ),
        (
            CacheConfig,
            {"sliding_window": 8, "hybrid_window": 8},
            "sliding_window=8 hybrid_window=8 exclude",
        ),
    ],
)
def test_a_refusal_names_the_value_and_the_limit(
    kind: Any, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**values)
    message = str(caught.value)
    assert "\n" not in message
    for word in words.split():
        assert word in message, message


@pytest.mark.parametrize("policy", [UnifiedBatching(), SarathiBatching(), StaticBatching()])
def test_policies_that_chunk_need_no_budget_for_a_whole_prompt(policy: Any) -> None:
    config = SchedulerConfig(max_num_batched_tokens=64, max_model_len=1000)
    Scheduler(config, CacheConfig(), 100, batch_policy=policy)


@pytest.mark.parametrize(
    ("settings", "cache", "num_blocks", "policy", "words"),
    [
        ({"max_model_len": None}, {}, 10, None, "max_model_len=None max_position_embeddings"),
        ({}, {}, 0, None, "num_blocks=0 at least 1 block"),
        (
            {"enable_chunked_prefill": False, "max_num_batched_tokens": 99},
            {},
            10,
            None,
            "max_num_batched_tokens=99 max_model_len=100 raise lower enable_chunked_prefill=true",
        ),
        (
            {"max_num_batched_tokens": 99},
            {},
            10,
            PrefillFirstBatching(),
            "max_num_batched_tokens=99 max_model_len=100 raise lower",
        ),
        (
            {"preemption_mode": "swap"},
            {"sliding_window": 8},
            10,
            None,
            "preemption_mode=swap sliding_window hybrid_window preemption_mode=recompute",
        ),
    ],
)
def test_settings_that_contradict_each_other(
    settings: dict[str, Any], cache: dict[str, Any], num_blocks: int, policy: Any, words: str
) -> None:
    config = SchedulerConfig(**{"max_model_len": 100} | settings)
    with pytest.raises(ConfigError) as caught:
        Scheduler(config, CacheConfig(**cache), num_blocks, batch_policy=policy)
    for word in words.split():
        assert word in str(caught.value)


def test_a_chunk_holds_a_token_at_least() -> None:
    with pytest.raises(ConfigError, match="chunk_size=0 must be at least 1 token"):
        SarathiBatching(chunk_size=0)
