"""What is refused when an engine is put together, and what follows the model."""

from typing import Any

import pytest

from engine.build import build_engine_core, resolve_device, with_budget
from engine.config import EngineConfig
from engine.kv_cache import GIB
from tests.engine.harness import generate, make_engine
from tests.engine.tiny import tiny
from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import PipelinedEngineCore
from workbench.errors import ConfigError, WorkbenchError


def test_a_cache_too_small_for_one_request_names_the_longest_that_fits() -> None:
    with pytest.raises(ConfigError, match=r"needs 32 KV blocks .* max_model_len of 160.*raise num"):
        make_engine(tiny("llama").folder, num_gpu_blocks_override=10)
    make_engine(tiny("llama").folder, num_gpu_blocks_override=10, max_model_len=160)


def test_a_default_cache_too_small_names_a_setting_that_every_command_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.kv_capacity.DEFAULT_CPU_BYTES", 100_000)
    with pytest.raises(ConfigError, match="lower max_model_len, or set kv_cache_memory_bytes"):
        make_engine(tiny("llama").folder, device="cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_model_len": 513}, "max_model_len=513 exceeds max_position_embeddings=512"),
        ({"kv_cache_memory_bytes": 100}, "raise kv_cache_memory_bytes"),
        ({"cpu_kvcache_space_gib": 0.00001}, "raise cpu_kvcache_space_gib"),
        ({"sliding_window": 32}, "sliding_window=32, but the model's is None"),
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype='auto'"),
        ({"attention_backend": "flash"}, "'flash' is unknown"),
        ({"device": "cuda"}, "torch sees no GPU"),
        (
            {"enable_chunked_prefill": False, "max_num_batched_tokens": 64},
            "prompts are not chunked",
        ),
    ],
)
def test_settings_that_contradict_the_model(settings: dict[str, Any], message: str) -> None:
    if settings.get("device") == "cuda" and resolve_device("auto").type == "cuda":
        pytest.skip("there is a GPU")
    with pytest.raises(WorkbenchError, match=message):
        make_engine(tiny("llama").folder, **settings)


def test_length_and_windows_follow_the_model() -> None:
    engine = make_engine(tiny("mistral").folder)
    assert engine.scheduler_config.max_model_len == 512
    assert engine.cache_config.sliding_window == 24
    hybrid = make_engine(tiny("hybrid").folder)
    assert hybrid.cache_config.hybrid_window == 24
    assert len(hybrid.core.scheduler.kv_cache_manager.groups) == 2
    swapping = make_engine(tiny("hybrid").folder, preemption_mode="swap", swap_space_gib=0.001)
    assert swapping.cache_config.hybrid_window is None


def test_the_size_of_the_cache() -> None:
    page = 2 * 2 * 16 * 16 * 4  # keys and values, 2 heads of 16, 16 tokens, float32
    explicit = make_engine(tiny("llama").folder, kv_cache_memory_bytes=100 * 3 * page)
    assert explicit.num_blocks == 99  # one of them is the null block
    space = make_engine(tiny("llama").folder, cpu_kvcache_space_gib=300 * page / GIB)
    assert space.num_blocks == 99
    default = make_engine(tiny("llama").folder, max_num_seqs=2, max_model_len=32)
    assert default.num_blocks == 2 * 3 + 1
    assert default.runner.backend.kv_caches[0].shape == (2, 8, 2, 16, 16)


def test_a_smaller_budget_means_smaller_steps_and_the_same_answers() -> None:
    engine = make_engine(tiny("llama").folder, max_num_batched_tokens=48, max_num_seqs=4)
    smaller = with_budget(engine, 16)
    assert smaller.runner is engine.runner
    assert smaller.scheduler_config.max_num_batched_tokens == 16
    prompt = [list(range(1, 41))]
    in_chunks = generate(smaller, prompt, 4)
    whole = generate(with_budget(engine, 48), prompt, 4)
    assert in_chunks.token_ids == whole.token_ids
    assert in_chunks.num_steps == whole.num_steps + 2  # 16 + 16 + 8 tokens instead of 40


def test_a_budget_larger_than_the_engines_is_refused() -> None:
    engine = make_engine(tiny("llama").folder, max_num_batched_tokens=48, max_num_seqs=4)
    with pytest.raises(ConfigError, match="max_num_batched_tokens=49 exceeds the 48"):
        with_budget(engine, 49)
    with pytest.raises(ConfigError, match="max_num_batched_tokens=0 must be at least 1"):
        with_budget(engine, 0)


def test_dummy_weights_need_no_folder_and_async_gets_a_pipeline() -> None:
    fields = tiny("llama").model.config.to_dict()
    config = EngineConfig(
        model=fields,
        load_format="dummy",
        device="cpu",
        scheduler_config=SchedulerConfig(async_scheduling=True, max_num_seqs=4),
        cache_config=CacheConfig(num_gpu_blocks_override=64),
    )
    parts = build_engine_core(config)
    assert isinstance(parts.core, PipelinedEngineCore)
    parts.executor.shutdown()
