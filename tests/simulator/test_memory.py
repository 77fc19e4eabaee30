"""KV blocks of a hybrid cache: a block holds the layers of one group."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from experiments.assemble import Assembly
from experiments.run import compose_config
from simulator.hardware import HardwareConfig
from simulator.memory import block_bytes, num_kv_blocks, num_kv_groups
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError
from workbench.step_profile import StepShape

Load = Callable[[str], HardwareConfig]


def test_a_hybrid_cache_has_twice_as_many_blocks(hardware: Load, llama: ModelConfig) -> None:
    one, two = (
        num_kv_blocks(llama, hardware("a100"), ParallelConfig(), SchedulerConfig(), cache)
        for cache in (CacheConfig(), CacheConfig(hybrid_window=1024))
    )
    assert two - 2 * one in (0, 1)


def test_the_layers_of_an_odd_model_are_padded(llama: ModelConfig) -> None:
    odd = replace(llama, num_hidden_layers=5)
    whole = block_bytes(odd, ParallelConfig(), 16)
    assert block_bytes(odd, ParallelConfig(), 16, num_kv_groups(64)) == pytest.approx(0.6 * whole)
    assert block_bytes(odd, ParallelConfig(1, 2), 16, 2) == pytest.approx(0.4 * whole)
    with pytest.raises(ConfigError, match="2 KV cache groups need as many layers"):
        block_bytes(odd, ParallelConfig(1, 5), 16, 2)


def test_a_config_takes_the_windows_everywhere() -> None:
    def assembly(*overrides: str) -> Assembly:
        return Assembly.from_config(compose_config(["scheduler=swap", *overrides]))

    full = assembly()
    hybrid, sliding = assembly("cache.hybrid_window=256"), assembly("cache.sliding_window=256")
    assert hybrid.num_kv_blocks - 2 * full.num_kv_blocks in (0, 1)
    assert hybrid.num_host_blocks == 2 * full.num_host_blocks
    assert sliding.num_kv_blocks == full.num_kv_blocks
    long = StepShape(64, 64 * 4096, [], 64)
    times = [a.cost_model.step_time(long) for a in (full, hybrid, sliding)]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 3
