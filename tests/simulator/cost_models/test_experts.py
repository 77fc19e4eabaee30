"""Rows of experts that are on other GPUs."""

from pathlib import Path

import pandas as pd
import pytest

from simulator.cost_models.cached_memory import FASTER, HELD, REACHED, CachedMemory
from simulator.cost_models.experts import expert_load, time_elsewhere
from simulator.cost_models.layerwise import MeasuredExperts
from simulator.hardware import HardwareConfig
from simulator.model_config import load_model_preset
from simulator.parallel import ParallelConfig

MODEL = load_model_preset("qwen3_30b_a3b")
GPU = HardwareConfig("gpu", 80, 2000, 300, 100, 300, 32, l2_cache_mb=100)
MEMORY = CachedMemory(GPU)
SPREAD = ParallelConfig(1, 1, 2, enable_expert_parallel=True)


def test_what_the_cache_holds_passes_faster() -> None:
    held = HELD * 100e6
    assert MEMORY.seconds(held) == pytest.approx(held / FASTER / 2000e9)
    beyond = MEMORY.seconds(held + 1e6) - MEMORY.seconds(held)
    assert beyond == pytest.approx(1e6 / REACHED / 2000e9)


def test_rows_elsewhere_are_moved_without_being_multiplied() -> None:
    for parallel in (ParallelConfig(), ParallelConfig(2)):
        load = expert_load(MODEL, parallel, 100)
        assert load.elsewhere == 0.0
        assert time_elsewhere(MODEL, load, MEMORY) == 0.0
    load = expert_load(MODEL, SPREAD, 100)
    assert load.elsewhere == load.assignments == 100 * MODEL.num_experts_per_tok
    zeros, activated, summed = 2 * 768 + 2048, 3 * 768, 2048 + 2048 / 8
    moved = 800 * 2 * (zeros + activated + summed)  # all in the cache
    assert time_elsewhere(MODEL, load, MEMORY) == pytest.approx(moved / FASTER / 2000e9)
    many = expert_load(MODEL, SPREAD, 2000)
    assert time_elsewhere(MODEL, many, MEMORY) > 40 * time_elsewhere(MODEL, load, MEMORY)


def test_a_table_of_whole_experts_is_asked_for_its_own_rows_only(tmp_path: Path) -> None:
    """A rank with half of the experts takes what the table says and the rows elsewhere."""
    rows = [(t, a, 10.0 * a) for t in (1, 1000) for a in (8, 128)]
    (tmp_path / "tp1").mkdir()
    columns = ["tokens", "activated_experts", "time_us"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "tp1/moe.csv")
    alone = MeasuredExperts(MODEL, ParallelConfig(), tmp_path / "tp1", MEMORY).time(1000)
    assert alone == pytest.approx(1280e-6, rel=0.01)
    elsewhere = time_elsewhere(MODEL, expert_load(MODEL, SPREAD, 1000), MEMORY)
    assert elsewhere > 20e-6
    spread = MeasuredExperts(MODEL, SPREAD, tmp_path / "tp1", MEMORY).time(1000)
    free = CachedMemory(HardwareConfig("gpu", 80, 9e8, 300, 100, 300, 32))
    without = MeasuredExperts(MODEL, SPREAD, tmp_path / "tp1", free).time(1000)
    assert spread == pytest.approx(without + elsewhere, rel=1e-4)


@pytest.mark.parametrize(("gpu", "model", "width"), [
    ("RTXPRO6000", "meta-llama/Llama-3.1-8B", 14336), ("RTXPRO6000", "Qwen/Qwen3-32B", 25600),
    ("RTX4090", "meta-llama/Llama-3.1-8B", 14336),
])  # fmt: skip
def test_passes_of_the_shared_profiles(shared_dir: Path, gpu: str, model: str, width: int) -> None:
    table = pd.read_csv(shared_dir / f"profiles/layerwise/{gpu}/{model}/tp1/dense.csv")
    rows = table[(table["layer"] == "act_fn") & (table["tokens"] >= 256)]
    rate, cache = (1597, 128) if gpu == "RTXPRO6000" else (1008, 72)
    memory = CachedMemory(HardwareConfig("gpu", 80, rate, 300, 100, 300, 32, l2_cache_mb=cache))
    told = [1e6 * memory.seconds(3 * width * n * 2) for n in rows["tokens"]]
    assert sum(told) == pytest.approx(rows["time_us"].sum(), rel=0.15)
