"""Collectives: analytic properties, and tables."""

from collections.abc import Callable
from math import inf
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.hardware import HardwareConfig
from simulator.interconnect import Interconnect, MeasuredAllReduce
from workbench.errors import ConfigError, CostModelError

GPU = HardwareConfig("gpu", 80, 2000, 300, 100, 300, 32)
LINKS = Interconnect(GPU)


@given(st.floats(1, 1e9), st.floats(1, 10), st.sampled_from([2, 4, 8, 16]))
def test_larger_messages_take_longer(size: float, factor: float, ranks: int) -> None:
    for collective in (LINKS.all_reduce, LINKS.all_gather):
        assert 0 < collective(size, ranks) <= collective(size * factor, ranks)
    assert LINKS.send_recv(size) <= LINKS.send_recv(size * factor)


def test_nothing_to_send_takes_no_time() -> None:
    assert LINKS.all_reduce(1e6, 1) == LINKS.all_reduce(0, 4) == LINKS.all_gather(0, 4) == 0
    assert LINKS.send_recv(0) == 0


def test_large_all_reduce_is_bound_by_bandwidth() -> None:
    seconds = LINKS.all_reduce(1e9, 8)
    assert seconds == pytest.approx(2 * 7 / 8 * 1e9 / (300e9 * 0.65), rel=0.01)


def test_network_between_nodes_is_slower() -> None:
    assert LINKS.all_reduce(1e7, 16) > LINKS.all_reduce(1e7, 8)
    assert LINKS.send_recv(1e7, crosses_nodes=True) > LINKS.send_recv(1e7)


def test_table_interpolates_counts_and_refuses(tmp_path: Path) -> None:
    table = MeasuredAllReduce({2: ([100.0, 200.0], [1.0, 2.0])})
    assert table(10, 2) == 1.0
    assert table(150, 2) == pytest.approx(1.5)
    assert table(400, 2) == pytest.approx(4.0)
    assert (table.largest(2), table.largest(4)) == (200.0, inf)
    assert table(400, 1) == 0
    with pytest.raises(CostModelError, match="8 times the largest"):
        table(2000, 2)
    with pytest.raises(CostModelError, match="over 4 GPUs"):
        table(100, 4)
    assert MeasuredAllReduce({}, LINKS.all_reduce)(100, 4) == LINKS.all_reduce(100, 4)
    with pytest.raises(ConfigError, match="does not exist"):
        MeasuredAllReduce.load(tmp_path / "none.csv")
    file = tmp_path / "bad.csv"
    pd.DataFrame({"num_workers": [2]}).to_csv(file)
    with pytest.raises(ConfigError, match="devices_per_node"):
        MeasuredAllReduce.load(file)


def test_reads_both_formats(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "num_gpus": 2,
            "message_size": [100, 200, 100],
            "latency": [0.5, 1.0, 9.0],
            "backend": ["vllm_graph", "vllm_graph", "vllm_eager"],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    assert MeasuredAllReduce.load(tmp_path / "t.parquet")(300, 2) == pytest.approx(0.75e-3)
    frame = pd.DataFrame(
        {
            "num_workers": [2, 2, 2],
            "devices_per_node": [2, 2, 1],
            "size": [100, 200, 100],
            "time_stats.all_reduce.median": [0.5, 1.0, 9.0],
        }
    )
    frame.to_csv(tmp_path / "t.csv")
    assert MeasuredAllReduce.load(tmp_path / "t.csv")(150, 2) == pytest.approx(0.75e-3)


@pytest.mark.parametrize(
    ("file", "gpu"),
    [
        ("kernels/a100_sxm/comm/vllm/0.14.0/custom_allreduce_perf.parquet", "a100"),
        ("kernels/h100_sxm/comm/vllm/0.24.0/custom_allreduce_perf.parquet", "h100"),
    ],
)
def test_analytic_model_is_near_measurements(
    shared_dir: Path, hardware: Callable[[str], HardwareConfig], file: str, gpu: str
) -> None:
    table = MeasuredAllReduce.load(shared_dir / "profiles" / file)
    links = Interconnect(hardware(gpu), 0.65)
    for size in (1e6, 4e6, 16e6, 64e6):
        for ranks in (2, 4, 8):
            assert 0.5 < links.all_reduce(size, ranks) / table(size, ranks) < 2.0


def test_analytic_model_is_near_nccl(
    shared_dir: Path, hardware: Callable[[str], HardwareConfig]
) -> None:
    # small messages are left out: NCCL launches cost tens of microseconds, one-shot kernels do not
    for gpu in ("a100", "h100"):
        table = MeasuredAllReduce.load(shared_dir / f"profiles/network/{gpu}_dgx/all_reduce.csv")
        links = Interconnect(hardware(gpu), 0.65)
        for ranks in (2, 4, 8):
            assert 0.5 < links.all_reduce(48e6, ranks) / table(48e6, ranks) < 2.0
