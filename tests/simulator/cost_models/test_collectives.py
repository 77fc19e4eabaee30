"""What GPUs of a replica say to each other."""

from pathlib import Path

import pandas as pd
import pytest

from simulator.cost_models.collectives import Collectives
from simulator.cost_models.kernel_constants import KernelConstants
from simulator.hardware import HardwareConfig
from simulator.model_config import load_model_preset
from simulator.parallel import ParallelConfig

FAST = HardwareConfig("gpu", 80, 2000, 300, 100, 300, 32)
BYTES_A_SECOND, LATENCY = 10e9, 20e-6


def test_logits_take_the_link_that_was_measured(tmp_path: Path) -> None:
    """A gather sends each half of the logits once, at the rate of an all-reduce of as much."""
    sizes = [2**n for n in range(8, 28)]
    rows = [(2, size // 2, 1e3 * (LATENCY + size / BYTES_A_SECOND)) for size in sizes]
    file = tmp_path / "all_reduce.parquet"
    pd.DataFrame(rows, columns=["num_gpus", "message_size", "latency"]).to_parquet(file)
    model = load_model_preset("llama3_8b")
    measured = Collectives(model, FAST, ParallelConfig(2), KernelConstants(), str(file))
    of_each = 128 * model.vocab_size * 2 / 2
    assert measured.sample_time(128) == pytest.approx(LATENCY + of_each / BYTES_A_SECOND, rel=0.01)
    formula = Collectives(model, FAST, ParallelConfig(2), KernelConstants())
    assert measured.sample_time(128) > 2 * formula.sample_time(128)
    alone = Collectives(model, FAST, ParallelConfig(), KernelConstants(), str(file))
    assert alone.sample_time(128) == 0.0
