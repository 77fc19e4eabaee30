"""Decode rows of unequal length, and kernels that split rows."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from simulator.cost_models.attention import AttentionHeads
from simulator.cost_models.kernel_constants import KernelConstants, constants_for
from simulator.cost_models.roofline import RooflineCostModel
from simulator.cost_models.uneven_rows import UnevenRows, num_splits
from simulator.hardware import HardwareConfig
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from workbench.step_profile import StepShape

Load = Callable[[str], HardwareConfig]
GPU = HardwareConfig("gpu", 80, 2000, 300, 100, 300, 32)
HEADS = AttentionHeads(32, 8, 128)
EVEN = 100e-6


def uneven(constants: KernelConstants | None = None, captured: int | None = None) -> UnevenRows:
    return UnevenRows(HEADS, GPU, constants or KernelConstants(), captured_len=captured)


def test_equal_rows_cost_nothing_more() -> None:
    assert uneven().time(EVEN, 64, 64 * 1000, [], 1000) == EVEN
    assert uneven().time(EVEN, 0, 0, [(512, 0)], 0) == EVEN


def test_the_longest_row_is_waited_for_and_longer_rows_longer() -> None:
    model = uneven()
    times = [model.time(EVEN, 64, 64 * 1000, [], longest) for longest in (1000, 4000, 8000)]
    assert EVEN == times[0] < times[1] < times[2]


def test_more_rows_hide_more_of_the_longest_one() -> None:
    model = uneven()
    few, many = (model.time(EVEN, rows, rows * 1000, [], 4000) for rows in (64, 256))
    assert EVEN < many < few


def test_balancing_kernels_cost_nothing_more() -> None:
    packed = replace(KernelConstants(), packs_query_heads=True)
    assert uneven(packed).time(EVEN, 64, 64 * 1000, [], 8000) == EVEN


def test_few_rows_are_split_unless_a_graph_was_captured_for_long_ones() -> None:
    assert uneven().time(EVEN, 8, 8 * 1000, [], 8000) == EVEN
    assert uneven(captured=131_072).time(EVEN, 8, 8 * 1000, [], 8000) > EVEN
    # a graph that was captured for short requests splits as it should
    assert uneven(captured=2048).time(EVEN, 8, 8 * 1000, [], 2000) == EVEN


def test_a_prompt_chunk_that_walks_as_far_hides_the_longest_row() -> None:
    model = uneven()
    assert model.time(EVEN, 8, 8 * 500, [(512, 0)], 4000) > EVEN
    assert model.time(EVEN, 8, 8 * 500, [(512, 3600)], 4000) == EVEN


def test_a_window_bounds_the_longest_row() -> None:
    windowed = UnevenRows(HEADS, GPU, KernelConstants(), window=500)
    assert windowed.time(EVEN, 64, 64 * 1000, [], 8000) == EVEN


def test_splits_fill_the_places_and_none_are_made_where_blocks_suffice() -> None:
    assert num_splits(200, 200, 64) == 1
    assert num_splits(160, 200, 64) == 1
    assert num_splits(100, 200, 64) == 2
    assert num_splits(8, 200, 1) == 1
    for blocks in range(2, 160):  # one block has no more than 128 parts
        parts = num_splits(blocks, 200, 1024)
        waves = blocks * parts / 200
        assert waves / -(-waves // 1) > 0.8


@pytest.mark.parametrize(("gpu", "even_us", "measured_us", "rows"), [
    ("rtx_pro_6000", 227.3, 281.6, 64),
    ("rtx_pro_6000", 412.2, 452.4, 128),
    ("rtx_pro_6000", 759.0, 791.4, 256),
    ("rtx4090", 345.2, 427.4, 64),
    ("rtx4090", 620.7, 672.6, 128),
])  # fmt: skip
def test_measured_batches_with_one_long_row(
    hardware: Load, gpu: str, even_us: float, measured_us: float, rows: int
) -> None:
    """Llama-3.1-8B, one row of 4,096 keys and the others of 1,024; LLMServingSim's sweep (MIT).

    The long row is the first there and the middle one here, so it is through a little earlier.
    """
    model = UnevenRows(HEADS, hardware(gpu), constants_for(gpu))
    keys = 4096 + (rows - 1) * 1024
    predicted = 1e6 * model.time(1e-6 * even_us, rows, keys, [], 4096)
    assert predicted == pytest.approx(measured_us, rel=0.065)
    assert abs(predicted - measured_us) < abs(even_us - measured_us) * 1.1


def test_the_model_prices_the_longest_row_only_when_asked_to(llama: ModelConfig) -> None:
    plain = RooflineCostModel(llama, GPU, ParallelConfig())
    asked = RooflineCostModel(llama, GPU, ParallelConfig(), uneven_rows=True)
    equal, long = (StepShape(64, 64_000, [], 64, 0, longest) for longest in (1000, 6000))
    assert not plain.wants_longest_decode
    assert asked.wants_longest_decode
    assert plain.step_time(long) == plain.step_time(equal) == asked.step_time(equal)
    assert asked.step_time(long) > asked.step_time(equal)
    assert sum(asked.breakdown(long).values()) == pytest.approx(asked.step_time(long))
