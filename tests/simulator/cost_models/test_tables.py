"""Cost models from measured tables: exact where measured, counted beyond, refused far out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simulator.cost_models.kernel_tables import KernelTableCostModel
from simulator.cost_models.layerwise import LAYER_COUNTS, LayerwiseCostModel
from simulator.cost_models.roofline import RooflineCostModel
from simulator.hardware import HardwareConfig
from simulator.model_config import ModelConfig, load_model_preset
from simulator.parallel import ParallelConfig
from workbench.errors import ConfigError, CostModelError
from workbench.step_profile import StepShape

Load = Callable[[str], HardwareConfig]
SHAPES = [
    StepShape(32, 32 * 1024, [], 32),
    StepShape(200, 200 * 300, [], 200),
    StepShape(0, 0, [(2048, 0)], 1),
    StepShape(64, 64 * 800, [(500, 100), (100, 0), (1000, 0)], 66),
]


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A profile of a dense model in which every part takes 1 us a token, attention 10 us."""
    folder = tmp_path / "gpu" / "model"
    (folder / "tp1").mkdir(parents=True)
    dense = [(n, t, t) for n in (*LAYER_COUNTS, "embedding", "final_layernorm") for t in (1, 100)]
    pd.DataFrame(dense, columns=["layer", "tokens", "time_us"]).to_csv(folder / "tp1/dense.csv")
    heads = [(n, s, s) for n in ("lm_head", "sampler") for s in (1, 10)]
    frame = pd.DataFrame(heads, columns=["layer", "sequences", "time_us"])
    frame.to_csv(folder / "tp1/per_sequence.csv")
    prompt = [(q, c, 0, 0, 10.0) for q in (10, 100) for c in (0, 1000)]
    decode = [(0, 0, n, c, 10.0) for n in (1, 10) for c in (10, 1000)]
    mixed = [(*p[:2], *d[2:4], 20.0) for p in prompt for d in decode]
    columns = ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"]
    frame = pd.DataFrame(prompt + decode + mixed, columns=columns)
    frame.to_csv(folder / "tp1/attention.csv")
    return folder


def test_layerwise_adds_its_parts(profile: Path, hardware: Load, llama: ModelConfig) -> None:
    model = LayerwiseCostModel(llama, hardware("a100"), ParallelConfig(), str(profile))
    count = sum(LAYER_COUNTS.values())
    decode = 32 * (count * 5 + 10) + 2 * 5 + 2 * 5
    # 5 rows with 10 tokens each lie on the grid's lower edge, between 1 and 10 rows
    assert model.step_time(StepShape(5, 50, [], 5)) == pytest.approx(decode * 1e-6, rel=0.05)
    exact = StepShape(10, 10_000, [], 10)
    assert model.step_time(exact) == pytest.approx((32 * (count * 10 + 10) + 40) * 1e-6)
    both = StepShape(1, 10, [(10, 1000)], 2)
    assert model.step_time(both) == pytest.approx((32 * (count * 11 + 20) + 26) * 1e-6)
    assert sum(model.breakdown(both).values()) == pytest.approx(model.step_time(both))
    assert not model.is_extrapolated(both)


def test_layerwise_counts_and_refuses(profile: Path, hardware: Load, llama: ModelConfig) -> None:
    model = LayerwiseCostModel(llama, hardware("a100"), ParallelConfig(), str(profile))
    outside = [
        StepShape(0, 0, [(150, 0)], 1),
        StepShape(0, 0, [(50, 2000)], 1),
        StepShape(11, 110, [], 11),
        StepShape(5, 10_000, [], 5),
        StepShape(5, 10_000, [(50, 0)], 5),
    ]
    for shape in outside:
        assert model.step_time(shape) > 0
        assert model.is_extrapolated(shape)
    far = {
        "token count of 1000": StepShape(0, 0, [(1000, 0)], 1),
        "context of 9000": StepShape(0, 0, [(50, 9000)], 1),
        "number of samples of 90": StepShape(90, 900, [], 90),
        "mean context of 20000": StepShape(1, 20_000, [], 1),
    }
    for message, shape in far.items():
        with pytest.raises(CostModelError, match=f"{message} is more than 8 times"):
            model.step_time(shape)


def test_bad_profiles_are_named(profile: Path, hardware: Load, llama: ModelConfig) -> None:
    def build(path: Path, parallel: ParallelConfig | None = None) -> None:
        LayerwiseCostModel(llama, hardware("a100"), parallel or ParallelConfig(), str(path))

    build(profile / "tp1")
    with pytest.raises(ConfigError, match=r"tensor_parallel_size=2 \(have tp1\)"):
        build(profile, ParallelConfig(2))
    with pytest.raises(ConfigError, match="does not exist"):
        build(profile / "none")
    dense = profile / "tp1/dense.csv"
    whole = pd.read_csv(dense)
    whole[whole["layer"] != "o_proj"].to_csv(dense)
    with pytest.raises(ConfigError, match="lacks the layer o_proj"):
        build(profile)
    whole.drop(columns="tokens").to_csv(dense)
    with pytest.raises(ConfigError, match="lacks the column tokens"):
        build(profile)
    whole.drop(columns="layer").to_csv(dense)
    with pytest.raises(ConfigError, match="lacks the column layer"):
        build(profile)
    for wrong in (float("nan"), float("inf"), -1.0):
        whole.assign(time_us=[wrong, *whole["time_us"][1:]]).to_csv(dense)
        with pytest.raises(ConfigError, match=f"holds {wrong:g} as time_us in row 0"):
            build(profile)
    whole.assign(time_us="slow").to_csv(dense)
    with pytest.raises(ConfigError, match="no number"):
        build(profile)
    whole.iloc[:0].to_csv(dense)
    with pytest.raises(ConfigError, match="empty"):
        build(profile)
    dense.unlink()
    with pytest.raises(ConfigError, match=r"dense\.csv does not exist"):
        build(profile)


LAYERWISE = [
    ("RTX4090/meta-llama/Llama-3.1-8B", "rtx4090", "llama3_8b", ParallelConfig()),
    ("RTXPRO6000/meta-llama/Llama-3.1-8B", "rtx_pro_6000", "llama3_8b", ParallelConfig()),
    ("RTXPRO6000/meta-llama/Llama-3.1-8B", "rtx_pro_6000", "llama3_8b", ParallelConfig(2)),
    ("RTXPRO6000/Qwen/Qwen3-32B", "rtx_pro_6000", "qwen3_32b", ParallelConfig(2)),
    (
        "RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507",
        "rtx_pro_6000",
        "qwen3_30b_a3b",
        ParallelConfig(1, 1, 2, enable_expert_parallel=True),
    ),
]


@pytest.mark.parametrize(("folder", "gpu", "name", "parallel"), LAYERWISE)
def test_roofline_is_near_layerwise_profiles(
    shared_dir: Path,
    hardware: Load,
    folder: str,
    gpu: str,
    name: str,
    parallel: ParallelConfig,
) -> None:
    path = str(shared_dir / "profiles/layerwise" / folder)
    model = load_model_preset(name)
    measured = LayerwiseCostModel(model, hardware(gpu), parallel, path)
    roofline = RooflineCostModel(model, hardware(gpu), parallel)
    for shape in SHAPES:
        assert roofline.step_time(shape) == pytest.approx(measured.step_time(shape), rel=0.15)
    assert not any(map(measured.is_extrapolated, SHAPES))


def test_layerwise_attention_is_exact_on_its_grid(
    shared_dir: Path, hardware: Load, llama: ModelConfig
) -> None:
    path = shared_dir / "profiles/layerwise/RTX4090/meta-llama/Llama-3.1-8B"
    model = LayerwiseCostModel(llama, hardware("rtx4090"), ParallelConfig(), str(path))
    frame = pd.read_csv(path / "tp1/attention.csv").iloc[::97]
    for chunk, cached, rows, context, microseconds in frame.itertuples(index=False):
        prefills = [(int(chunk), int(cached))] if chunk else []
        seconds = model.breakdown(StepShape(int(rows), int(rows * context), prefills))["attention"]
        seconds /= 32
        assert seconds == pytest.approx(microseconds * 1e-6, rel=1e-6)


KERNELS = [
    ("a100_sxm", "a100", "llama3_8b", 1),
    ("h100_sxm", "h100", "llama3_8b", 1),
    ("h100_sxm", "h100", "llama3_70b", 4),
    ("rtx_pro_6000_server", "rtx_pro_6000", "qwen3_32b", 1),
    ("rtx_pro_6000_server", "rtx_pro_6000", "qwen3_30b_a3b", 2),
]


@pytest.mark.parametrize(("system", "gpu", "name", "ranks"), KERNELS)
def test_roofline_is_near_kernel_tables(
    shared_dir: Path, hardware: Load, system: str, gpu: str, name: str, ranks: int
) -> None:
    path = str(shared_dir / "profiles/kernels" / system)
    model, parallel = load_model_preset(name), ParallelConfig(ranks)
    measured = KernelTableCostModel(model, hardware(gpu), parallel, path)
    roofline = RooflineCostModel(model, hardware(gpu), parallel)
    for shape in SHAPES:
        seconds = measured.step_time(shape)
        assert roofline.step_time(shape) == pytest.approx(seconds, rel=0.2)
        assert sum(measured.breakdown(shape).values()) == pytest.approx(seconds)
    assert not any(map(measured.is_extrapolated, SHAPES))


@pytest.fixture
def kernels(tmp_path: Path, hardware: Load, llama: ModelConfig) -> Path:
    """Tables of a GPU on which every kernel takes 1 ms."""
    root = tmp_path / "system"
    products = [
        ("bfloat16", m, n, k, 1.0) for m in (1, 100) for n in (256, 8192) for k in (256, 8192)
    ]
    columns = ["gemm_dtype", "m", "n", "k", "latency"]
    _write(root / "gemm/vllm/0.9.0", "gemm_perf", products, columns)
    _write(root / "gemm/vllm/0.10.0", "gemm_perf", products, columns)
    columns = ["num_heads", "num_key_value_heads", "head_dim", "kv_cache_dtype"]
    columns += ["batch_size", "isl", "step", "latency"]
    for heads in ((32, 8), (64, 8)):
        head = (*heads, 128, "bfloat16")
        rows = [(*head, b, i, 0, 1.0) for b in (1, 8) for i in (16, 1024)]
        folder = root / "attention/vllm/0.10.0"
        _write(folder, "context_attention_perf", rows, columns)
        rows = [(*head, b, 1, s, 1.0) for b in (1, 8) for s in (15, 1023)]
        _write(folder, "generation_attention_perf", rows, columns)
    return root


def _write(folder: Path, name: str, rows: list[tuple], columns: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns).to_parquet(folder / f"{name}.parquet")


def test_kernel_tables_count_and_refuse(kernels: Path, hardware: Load, llama: ModelConfig) -> None:
    model = KernelTableCostModel(llama, hardware("a100"), ParallelConfig(), str(kernels))
    assert model.breakdown(StepShape(8, 8 * 1024, [], 8))["attention"] == pytest.approx(32e-3)
    parts = model.breakdown(StepShape(0, 0, [(100, 0)], 1))
    # 4096 x 4096 lies between two measured sizes
    assert 0.5e-3 < parts["o_proj"] / 32 < 2e-3
    outside = [
        StepShape(0, 0, [(101, 0)], 1),
        StepShape(9, 900, [], 9),
        StepShape(1, 2000, [], 1),
        StepShape(0, 0, [(50, 2000)], 1),
    ]
    for shape in outside:
        assert model.step_time(shape) > 0
        assert model.is_extrapolated(shape)
    for message, shape in {
        "token count": StepShape(0, 0, [(1000, 0)], 1),
        "decode rows": StepShape(90, 900, [], 90),
        "mean prompt length": StepShape(0, 0, [(50, 9000)], 1),
    }.items():
        with pytest.raises(CostModelError, match=message):
            model.step_time(shape)


def test_bad_kernel_tables_are_named(kernels: Path, hardware: Load, llama: ModelConfig) -> None:
    def build(path: Path, model: ModelConfig = llama, version: str | None = None) -> None:
        gpu = hardware("a100")
        KernelTableCostModel(model, gpu, ParallelConfig(), str(path), version=version)

    with pytest.raises(ConfigError, match="do not exist"):
        build(kernels / "none")
    with pytest.raises(ConfigError, match=r"gemm/vllm/1\.0"):
        build(kernels, version="1.0")
    with pytest.raises(ConfigError, match="fp8 products"):
        build(kernels, load_model_preset("llama3_8b", dtype="fp8"))
    with pytest.raises(ConfigError, match="fp8 rows"):
        build(kernels, load_model_preset("llama3_8b", kv_cache_dtype="fp8"))
    file = kernels / "gemm/vllm/0.10.0/gemm_perf.parquet"
    whole = pd.read_parquet(file)
    whole.assign(latency=[float("nan"), *whole["latency"][1:]]).to_parquet(file)
    with pytest.raises(ConfigError, match="holds nan as latency"):
        build(kernels)
    whole.assign(device="NVIDIA B200").to_parquet(file)
    with pytest.raises(ConfigError, match=r"measured on NVIDIA B200, not on hardware\.name=a100"):
        build(kernels)
    KernelTableCostModel(
        llama, hardware("a100"), ParallelConfig(), str(kernels), allow_mismatch=True
    )
    file.write_text("no table")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        build(kernels)
    pd.DataFrame({"gemm_dtype": ["bfloat16"], "m": [1]}).to_parquet(file)
    with pytest.raises(ConfigError, match="lacks the column n, k, latency"):
        build(kernels)


def test_speculative_rows_and_odd_mixes_are_finite(
    shared_dir: Path, hardware: Load, llama: ModelConfig
) -> None:
    path = str(shared_dir / "profiles/layerwise/RTXPRO6000/meta-llama/Llama-3.1-8B")
    model = LayerwiseCostModel(llama, hardware("rtx_pro_6000"), ParallelConfig(), path)
    for shape in (
        StepShape(1, 1, [(2, 5)] * 50, 51),
        StepShape(0, 0, [(5, 1000)] * 100, 500),
        StepShape(256, 256, [(1792, 0)], 256),
    ):
        assert np.isfinite(model.step_time(shape))
        assert model.step_time(shape) > 0
