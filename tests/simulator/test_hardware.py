"""Hardware presets, and KV capacity against a measured engine."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from simulator.hardware import HardwareConfig
from simulator.memory import block_bytes, num_kv_blocks, plan_memory
from simulator.model_config import ModelConfig, load_model_preset
from simulator.parallel import ParallelConfig
from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf" / "hardware"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
SCHEDULER, CACHE = SchedulerConfig(), CacheConfig()
Load = Callable[[str], HardwareConfig]


def test_all_presets_are_there() -> None:
    wanted = "a10 a100 a100_40gb b200 h100 h200 l40s mi300x rtx4090 rtx_pro_6000 v100"
    assert set(wanted.split()) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_presets_are_plausible_and_name_their_source(hardware: Load, name: str) -> None:
    gpu = hardware(name)
    assert gpu.name == name
    assert "sheet" in gpu.source.lower() or "white paper" in gpu.source
    # flop per byte of every data-centre GPU since 2017
    assert 100 < gpu.peak_flops("bfloat16") / gpu.memory_bandwidth < 500
    assert gpu.peak_flops("fp8") >= gpu.peak_flops("float16")


def test_scaling_changes_rates_and_latencies(hardware: Load) -> None:
    slow, fast = hardware("v100"), hardware("v100").scaled(2)
    assert fast.memory_bandwidth == 2 * slow.memory_bandwidth
    assert fast.host_latency_us == slow.host_latency_us / 2
    assert fast.memory_gb == slow.memory_gb
    assert fast.peak_tflops_bf16 is None


def test_bad_numbers_are_named(hardware: Load) -> None:
    with pytest.raises(ConfigError, match="memory_gb"):
        HardwareConfig("x", 0, 1, 1, 1, 1, 1)
    with pytest.raises(ConfigError, match="interconnect"):
        HardwareConfig("x", 1, 1, 1, 1, 1, 1, interconnect="string")


def test_blocks_of_a_measured_engine(shared_dir: Path, hardware: Load, llama: ModelConfig) -> None:
    meta = json.loads((shared_dir / "measured/RTX4090/Llama-3.1-8B/meta.json").read_text())
    measured = meta["kv_cache"]["num_gpu_blocks"]
    blocks = num_kv_blocks(llama, hardware("rtx4090"), ParallelConfig(), SCHEDULER, CACHE)
    assert blocks == pytest.approx(measured, rel=0.02)


def test_blocks_grow_with_memory_and_degrees(hardware: Load, llama: ModelConfig) -> None:
    def blocks(
        name: str,
        parallel: ParallelConfig,
        scheduler: SchedulerConfig = SCHEDULER,
        cache: CacheConfig = CACHE,
    ) -> int:
        return num_kv_blocks(llama, hardware(name), parallel, scheduler, cache)

    one = blocks("a100", ParallelConfig())
    assert blocks("h200", ParallelConfig()) > one
    assert blocks("a100", ParallelConfig(2)) > 2 * one
    assert blocks("a100", ParallelConfig(1, 2)) > 2 * one
    assert blocks("a100", ParallelConfig(16)) < 1.2 * blocks("a100", ParallelConfig(8))
    half = CacheConfig(gpu_memory_utilization=0.5)
    assert blocks("a100", ParallelConfig(), cache=half) < one
    wide = SchedulerConfig(max_num_batched_tokens=65536)
    assert blocks("a100", ParallelConfig(), scheduler=wide) < one
    large_blocks = CacheConfig(block_size=32)
    assert blocks("a100", ParallelConfig(), cache=large_blocks) == pytest.approx(one / 2, rel=0.01)
    assert blocks("a100", ParallelConfig(), cache=CacheConfig(num_gpu_blocks_override=7)) == 7


def test_memory_plan_adds_up(hardware: Load) -> None:
    mixture = load_model_preset("mixtral_8x7b")
    parallel = ParallelConfig(2, enable_expert_parallel=True)
    plan = plan_memory(mixture, hardware("h100"), parallel, SCHEDULER, CACHE)
    assert plan.weights + plan.activations + plan.other + plan.kv_cache == pytest.approx(
        plan.usable
    )
    assert plan.num_blocks == plan.kv_cache // plan.block_bytes


def test_weights_that_do_not_fit(hardware: Load) -> None:
    big = load_model_preset("llama3_70b")
    with pytest.raises(ConfigError, match=r"131\.4 GiB.*raise tensor_parallel_size \(now 1\)"):
        num_kv_blocks(big, hardware("a100"), ParallelConfig(), SCHEDULER, CACHE)
    assert num_kv_blocks(big, hardware("a100"), ParallelConfig(4), SCHEDULER, CACHE) > 1000


def test_a_block_without_tokens_is_refused(llama: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="block_size"):
        block_bytes(llama, ParallelConfig(), 0)
