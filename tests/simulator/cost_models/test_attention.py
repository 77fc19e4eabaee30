"""Attention: windows, batches of prompts and decodes, and the layout of FlashAttention."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cost_models.attention import AttentionHeads, AttentionRoofline, HybridAttention
from simulator.cost_models.attention_table import AttentionGrids, AttentionTable
from simulator.cost_models.grid import CorrectionGrid
from simulator.cost_models.kernel_attention import KernelAttention
from simulator.cost_models.kernel_constants import KernelConstants, constants_for
from simulator.cost_models.layerwise import LayerwiseCostModel
from simulator.cost_models.roofline import RooflineCostModel
from simulator.hardware import HardwareConfig
from simulator.model_config import ModelConfig, load_model_preset
from simulator.parallel import ParallelConfig
from workbench.step_profile import StepShape

Load = Callable[[str], HardwareConfig]
GPU = HardwareConfig("gpu", 80, 2000, 300, 100, 300, 32)
HEADS = AttentionHeads(32, 8, 128)
OWN_TILES = KernelConstants()
PACKED = replace(OWN_TILES, packs_query_heads=True)
DECODES, CONTEXT = 64, 64 * 900


def attention(
    constants: KernelConstants = OWN_TILES, window: int | None = None
) -> AttentionRoofline:
    return AttentionRoofline(HEADS, GPU, constants, window)


def test_a_decode_row_beside_a_prompt_has_a_tile_for_each_query_head() -> None:
    prompt = [(512, 0)]
    apart = attention().time(DECODES, CONTEXT, []) + attention().time(0, 0, prompt)
    together = attention().time(DECODES, CONTEXT, prompt)
    # 64 rows of which one is used, against 4 of 16
    assert together > 1.3 * apart
    packed = attention(PACKED)
    sum_of_parts = packed.time(DECODES, CONTEXT, []) + packed.time(0, 0, prompt) - packed.latency
    assert packed.time(DECODES, CONTEXT, prompt) == pytest.approx(sum_of_parts)


def test_the_longest_chunk_sizes_the_grid_of_all_rows() -> None:
    formula = attention()
    alone, equal = formula.time(0, 0, [(2048, 0)]), formula.time(0, 0, [(1024, 0)] * 2)
    start = OWN_TILES.empty_tile_us * 1e-6 * HEADS.heads / GPU.num_sms
    free = attention(replace(OWN_TILES, empty_tile_us=0.0))
    assert alone == free.time(0, 0, [(2048, 0)])
    assert equal == free.time(0, 0, [(1024, 0)] * 2)
    # 16 tiles find work in one row of 32, and one in each of 10 decode rows
    mixed = 10, 100, [(2048, 0), (1024, 0)]
    assert formula.time(*mixed) - free.time(*mixed) == pytest.approx((16 + 10 * 31) * start)


def test_few_query_tokens_still_take_a_whole_tile() -> None:
    formula = attention()
    assert formula.time(0, 0, [(3, 4096)] * 100) > 0.9 * formula.time(0, 0, [(60, 4096)] * 100)


def test_a_lost_cache_reads_keys_once_a_query_head() -> None:
    # one key head of 100 rows of 20,000 tokens has 1 GB, far beyond any cache
    fast = replace(OWN_TILES, attention_compute=1.2, attention_memory=0.1)
    small, large = (
        AttentionRoofline(HEADS, replace(GPU, l2_cache_mb=mb), fast) for mb in (1.0, 1e4)
    )
    batch = 100, 100 * 20_000, [(16, 0)]
    assert small.time(*batch) / large.time(*batch) == pytest.approx(4.0, rel=0.05)


counts = st.integers(1, 4096)


@given(
    st.integers(1, 256), counts, counts, st.integers(0, 8192), st.sampled_from([None, 128, 5000])
)
def test_mixed_batches_grow_with_everything(
    rows: int, mean: int, query: int, cached: int, window: int | None
) -> None:
    formula = attention(window=window)
    seconds = formula.time(rows, rows * mean, [(query, cached)]) * (1 - 1e-12)
    assert formula.time(rows + 1, rows * mean + mean, [(query, cached)]) >= seconds
    assert formula.time(rows, rows * mean + 50, [(query, cached)]) >= seconds
    assert formula.time(rows, rows * mean, [(query + 7, cached)]) >= seconds
    assert formula.time(rows, rows * mean, [(query, cached + 7)]) >= seconds
    assert formula.time(rows, rows * mean, [(query, cached), (5, 5)]) >= seconds


LAYERWISE = [
    ("RTX4090/meta-llama/Llama-3.1-8B", "rtx4090", "llama3_8b", 1),
    ("RTXPRO6000/meta-llama/Llama-3.1-8B", "rtx_pro_6000", "llama3_8b", 2),
    ("RTXPRO6000/Qwen/Qwen3-32B", "rtx_pro_6000", "qwen3_32b", 1),
    ("RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507", "rtx_pro_6000", "qwen3_30b_a3b", 1),
]


@pytest.mark.parametrize(("folder", "gpu", "name", "ranks"), LAYERWISE)
def test_mixed_batches_are_near_the_profiles_without_bias(
    shared_dir: Path, hardware: Load, folder: str, gpu: str, name: str, ranks: int
) -> None:
    frame = pd.read_csv(shared_dir / f"profiles/layerwise/{folder}/tp{ranks}/attention.csv")
    frame = frame[(frame["prefill_chunk"] > 0) & (frame["n_decode"] > 0)].iloc[::29]
    heads = AttentionHeads.of(load_model_preset(name), ParallelConfig(ranks))
    formula = AttentionRoofline(heads, hardware(gpu), constants_for(gpu))
    ratios = [
        formula.time(int(n), int(n * kd), [(int(q), int(kp))]) / (microseconds * 1e-6)
        for q, kp, n, kd, microseconds in frame.itertuples(index=False)
    ]
    assert fmean(abs(ratio - 1) for ratio in ratios) < 0.12
    assert abs(fmean(ratios) - 1) < 0.06


def test_a_window_bounds_what_is_read(hardware: Load, llama: ModelConfig) -> None:
    gpu, parallel = hardware("h100"), ParallelConfig()
    full = RooflineCostModel(llama, gpu, parallel)
    hybrid = RooflineCostModel(llama, gpu, parallel, hybrid_window=1024)
    sliding = RooflineCostModel(llama, gpu, parallel, sliding_window=1024)
    for shape in (StepShape(64, 64 * 8192, [], 64), StepShape(0, 0, [(512, 16_384)], 1)):
        times = [model.breakdown(shape)["attention"] for model in (full, hybrid, sliding)]
        assert times[0] > 2 * times[2]
        assert times[1] == pytest.approx((times[0] + times[2]) / 2)
    short = StepShape(64, 64 * 1000, [(20, 0)], 65)
    assert full.step_time(short) == hybrid.step_time(short) == sliding.step_time(short)


def test_a_window_replaces_that_of_the_model(hardware: Load) -> None:
    model, gpu = load_model_preset("mistral_7b_v0_1"), hardware("a100")
    assert model.sliding_window == 4096
    own, narrow = (
        RooflineCostModel(model, gpu, ParallelConfig(), sliding_window=w) for w in (None, 256)
    )
    assert own.step_time(StepShape(32, 32 * 8000, [], 32)) == own.step_time(
        StepShape(32, 32 * 4096, [], 32)
    )
    assert narrow.step_time(StepShape(32, 32 * 8000, [], 32)) == own.step_time(
        StepShape(32, 32 * 256, [], 32)
    )


def test_swapped_blocks_of_a_hybrid_cache_hold_half_of_the_layers(llama: ModelConfig) -> None:
    swap = StepShape(num_swap_blocks=1000)
    full, hybrid = (
        RooflineCostModel(llama, GPU, ParallelConfig(), hybrid_window=w).step_time(swap)
        for w in (None, 64)
    )
    assert hybrid == pytest.approx(full / 2, rel=1e-3)


def two_decodes(formula: AttentionRoofline) -> AttentionGrids:
    """Eight rows of 16 keys took 1 s, of 4,096 keys 3 s."""
    none, rows, keys = np.zeros(2), np.array([8.0, 8.0]), np.array([16.0, 4096.0])
    return AttentionGrids.measure(formula, none, none, rows, keys, np.array([1.0, 3.0]))


def test_a_window_is_looked_up_where_rows_see_as_many_keys() -> None:
    grids = two_decodes(attention())
    clipped = AttentionTable(attention(window=16), grids)
    assert clipped.time(8, 8 * 4096, []) == pytest.approx(1.0)
    # a window that is beyond the table asks for nothing beyond the table
    assert not clipped.is_extrapolated(8, 8 * 100_000, [])
    assert AttentionTable(attention(), grids).is_extrapolated(8, 8 * 100_000, [])
    # a profile of the windowed model holds what long rows cost
    grids = two_decodes(attention(window=16))
    assert AttentionTable(attention(window=16), grids, 16).time(8, 8 * 4096, []) == pytest.approx(3)


def test_a_hybrid_layer_is_outside_if_one_kind_is() -> None:
    grids = two_decodes(attention())
    full, windowed = (AttentionTable(attention(window=w), grids) for w in (None, 16))
    hybrid = HybridAttention(full, windowed)
    assert hybrid.is_bounded
    assert hybrid.is_extrapolated(8, 8 * 10_000, [])
    assert not HybridAttention(windowed, windowed).is_extrapolated(8, 8 * 10_000, [])


def test_kernel_tables_correct_a_mixed_batch_as_its_parts() -> None:
    def twice(factor: float) -> CorrectionGrid:
        points = np.array([[0.0, 0.0], [512.0, 100_000.0]])
        return CorrectionGrid(points, np.array([factor, factor]))

    formula = attention(window=1000)
    batch = DECODES, 64 * 9000, [(512, 0)]
    same = KernelAttention(formula, twice(2.0), twice(2.0))
    assert same.time(*batch) == pytest.approx(2 * formula.time(*batch))
    times = [KernelAttention(formula, twice(f), twice(2.0)).time(*batch) for f in (1, 2, 3)]
    assert all(a < b for a, b in pairwise(times))
    assert not same.is_extrapolated(512, 512 * 10**9, [])
    assert same.is_extrapolated(513, 513, [])


def test_layerwise_takes_the_window(shared_dir: Path, hardware: Load, llama: ModelConfig) -> None:
    path = str(shared_dir / "profiles/layerwise/RTX4090/meta-llama/Llama-3.1-8B")
    args = (llama, hardware("rtx4090"), ParallelConfig(), path)
    full, narrow = LayerwiseCostModel(*args), LayerwiseCostModel(*args, sliding_window=512)
    long, short = StepShape(16, 16 * 4096, [], 16), StepShape(16, 16 * 512, [], 16)
    assert narrow.step_time(long) == full.step_time(short) < full.step_time(long)
