"""The analytic cost model: metamorphic relations, monotonicity, parts, parallelism, sanity."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost_models.experts import expert_load
from simulator.cost_models.kernel_constants import MEASURED, KernelConstants, constants_for
from simulator.cost_models.roofline import Kernels, RooflineCostModel
from simulator.hardware import HardwareConfig
from simulator.model_config import ModelConfig, load_model_preset
from simulator.parallel import ParallelConfig
from workbench.errors import ConfigError
from workbench.step_profile import StepShape

Load = Callable[[str], HardwareConfig]
GPU = HardwareConfig("a100", 79, 2039, 312, 108, 300, 32, peak_tflops_bf16=312)
PARALLEL = [
    ParallelConfig(),
    ParallelConfig(2),
    ParallelConfig(4, 2),
    ParallelConfig(1, 4),
    ParallelConfig(2, 1, 2, enable_expert_parallel=True),
    ParallelConfig(2, 1, 2),
]
MODELS = ["llama3_8b", "qwen3_30b_a3b", "mistral_7b_v0_1"]
HOST = 0.0004


def build(model: str, parallel: ParallelConfig, speed: float = 1.0) -> RooflineCostModel:
    return RooflineCostModel(
        load_model_preset(model),
        GPU.scaled(speed),
        parallel,
        constants=constants_for("a100").scaled(speed),
        host_overhead_s=HOST / speed,
        host_overhead_per_request_s=1e-6 / speed,
    )


COST_MODELS = {(m, p): build(m, p) for m in MODELS for p in PARALLEL}
FAST = {(m, p): build(m, p, 2.0) for m in MODELS for p in PARALLEL}
rows = st.lists(st.tuples(st.integers(1, 4096), st.integers(0, 60_000)), max_size=4)


@st.composite
def shapes(draw: st.DrawFn) -> StepShape:
    decodes = draw(st.integers(0, 512))
    context = decodes * draw(st.integers(1, 30_000))
    prefills = draw(rows)
    samples = draw(st.integers(0, decodes + len(prefills)))
    return StepShape(decodes, context, prefills, samples, draw(st.integers(0, 100)))


keys = st.tuples(st.sampled_from(MODELS), st.sampled_from(PARALLEL))


@given(keys, shapes())
def test_a_gpu_twice_as_fast_takes_half_the_time(
    key: tuple[str, ParallelConfig], shape: StepShape
) -> None:
    assert FAST[key].step_time(shape) == pytest.approx(COST_MODELS[key].step_time(shape) / 2)


@given(keys, shapes())
def test_parts_add_up(key: tuple[str, ParallelConfig], shape: StepShape) -> None:
    model = COST_MODELS[key]
    parts = model.breakdown(shape)
    assert min(parts.values()) >= 0
    assert sum(parts.values()) == pytest.approx(model.step_time(shape))


@given(keys, shapes(), st.integers(1, 2000), st.integers(1, 5000))
def test_more_work_takes_longer(
    key: tuple[str, ParallelConfig], shape: StepShape, tokens: int, context: int
) -> None:
    seconds = COST_MODELS[key].step_time
    before = seconds(shape) * (1 - 1e-12)
    mean = -(-shape.decode_context // max(1, shape.num_decodes))
    more = [
        replace(shape, prefills=[*shape.prefills, (tokens, context)]),
        replace(
            shape,
            num_decodes=shape.num_decodes + 1,
            # a shape tells the mean row only: a shorter one more would shorten all
            decode_context=shape.decode_context + max(context, mean),
        ),
        replace(shape, num_samples=shape.num_samples + 1),
        replace(shape, num_swap_blocks=shape.num_swap_blocks + 1),
    ]
    if shape.num_decodes:
        more.append(replace(shape, decode_context=shape.decode_context + context))
    if shape.prefills:
        (query, cached), *others = shape.prefills
        more.append(replace(shape, prefills=[(query + tokens, cached), *others]))
        more.append(replace(shape, prefills=[(query, cached + context), *others]))
    for larger in more:
        assert seconds(larger) >= before


@given(st.floats(1, 1e15), st.floats(1, 1e12), st.sampled_from([1.0, 2.0, 3.0, float("inf")]))
@settings(max_examples=50)
def test_product_lies_between_maximum_and_sum(flops: float, num_bytes: float, power: float) -> None:
    kernels = Kernels(GPU, replace(KernelConstants(), roofline_exponent=power))
    compute, memory = flops / (312e12 * 0.75), num_bytes / (2039e9 * 0.8)
    seconds = kernels.product(flops, num_bytes) - 4e-6
    assert max(compute, memory) * (1 - 1e-6) - 1e-12 <= seconds
    assert seconds <= (compute + memory) * (1 + 1e-6) + 1e-12


def test_an_empty_step_costs_the_host_only() -> None:
    model = COST_MODELS["llama3_8b", PARALLEL[0]]
    assert model.step_time(StepShape()) == HOST
    assert model.breakdown(StepShape()) == {"host": HOST, "swap": 0.0}


def test_a100_is_near_what_is_known(hardware: Load, llama: ModelConfig) -> None:
    model = RooflineCostModel(llama, hardware("a100"), ParallelConfig())
    assert 11e-3 < model.step_time(StepShape(32, 32 * 1024, [], 32)) < 16e-3
    assert 115e-3 < model.step_time(StepShape(0, 0, [(2048, 0)], 1)) < 170e-3
    assert not model.is_bounded


def test_decode_is_bound_by_weights(hardware: Load, llama: ModelConfig) -> None:
    model = RooflineCostModel(llama, hardware("h100"), ParallelConfig())
    one = model.step_time(StepShape(1, 100, [], 1))
    assert one == pytest.approx(15e9 / 3.35e12, rel=0.4)
    assert model.step_time(StepShape(32, 3200, [], 32)) < 1.25 * one


def test_tensor_parallel_shortens_steps_less_than_ideally() -> None:
    shape = StepShape(64, 64_000, [(1000, 0)], 65)
    times = [build("llama3_8b", ParallelConfig(ranks)).step_time(shape) for ranks in (1, 2, 4, 8)]
    assert times == sorted(times, reverse=True)
    assert all(slow / fast < 2 for slow, fast in pairwise(times))


def test_pipeline_stages_add_hand_overs_to_one_pass() -> None:
    shape = StepShape(64, 64_000, [(1000, 0)], 65)
    one, four = (build("llama3_8b", ParallelConfig(1, pp)).step_time(shape) for pp in (1, 4))
    assert one < four < 1.05 * one


def test_expert_parallelism_reads_fewer_experts() -> None:
    model = load_model_preset("qwen3_30b_a3b")
    whole = ParallelConfig()
    load = expert_load(model, whole, 1)
    assert (load.assignments, load.width) == (8.0, 1.0)
    assert load.activated == pytest.approx(8.0)
    assert expert_load(model, whole, 10_000).activated == pytest.approx(128)
    spread = expert_load(model, ParallelConfig(2, 1, 2, enable_expert_parallel=True), 10_000)
    assert (spread.assignments, spread.width) == (40_000.0, 1.0)
    assert spread.activated == pytest.approx(32)
    sliced = expert_load(model, ParallelConfig(2, 1, 2), 10_000)
    assert (sliced.assignments, sliced.width) == (160_000.0, 0.25)
    assert sliced.activated == pytest.approx(128)


def test_data_parallel_ranks_of_a_dense_model_are_independent() -> None:
    shape = StepShape(16, 1600, [], 16)
    alone = build("llama3_8b", ParallelConfig()).step_time(shape)
    assert build("llama3_8b", ParallelConfig(1, 1, 8)).step_time(shape) == alone


def test_swaps_go_over_the_host_link() -> None:
    model = COST_MODELS["llama3_8b", PARALLEL[0]]
    seconds = model.step_time(StepShape(num_swap_blocks=1000)) - HOST
    assert seconds == pytest.approx(1000 * 16 * 131072 / (32e9 * 0.8), rel=0.01)


def test_fp8_weights_are_faster(hardware: Load) -> None:
    gpu, shape = hardware("h100"), StepShape(32, 32_000, [(512, 0)], 33)
    wide = RooflineCostModel(load_model_preset("llama3_8b"), gpu, ParallelConfig())
    narrow = RooflineCostModel(load_model_preset("llama3_8b", "fp8"), gpu, ParallelConfig())
    assert 0.45 < narrow.step_time(shape) / wide.step_time(shape) < 0.8


def test_constants_can_be_replaced_one_by_one() -> None:
    assert constants_for("h100", {"gemm_compute": 0.5}).gemm_compute == 0.5
    assert constants_for("h100", {"gemm_compute": 0.5}).gemm_memory == MEASURED["h100"].gemm_memory
    assert constants_for("unknown") == KernelConstants()
    for wrong in ({"gemm": 1}, {"gemm_compute": 0}, {"network": 2}, {"roofline_exponent": 0.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            constants_for("h100", wrong)
    assert all(constants.source for constants in MEASURED.values())


def test_bad_settings_are_named(llama: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="host_overhead_s"):
        RooflineCostModel(llama, GPU, ParallelConfig(), host_overhead_s=-1)
    with pytest.raises(ConfigError, match="tensor_parallel_size=5"):
        RooflineCostModel(llama, GPU, ParallelConfig(5))
