"""Numbers that are none, or absurd: each is refused by its name, in one line."""

import re
from collections.abc import Callable
from dataclasses import fields, replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from simulator.cluster import ClusterConfig
from simulator.cost_models.kernel_constants import KernelConstants
from simulator.cost_models.linear import ConstantCostModel, LinearCostModel
from simulator.cost_models.roofline import RooflineCostModel
from simulator.hardware import HardwareConfig
from simulator.interconnect import MeasuredAllReduce
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from workbench.errors import ConfigError

GPU = HardwareConfig("gpu", 80, 2000, 300, 100, 300, 32)
WRONG = (nan, inf, -1.0)


def refused(name: str, build: Callable[..., Any], *values: Any) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=re.escape(f"{name}={value!r}")):
            build(**{name: value})


def test_linear_and_constant_models() -> None:
    for name in ("base_s", "per_token_s", "per_context_token_s", "per_request_s"):
        refused(name, LinearCostModel, *WRONG, True, "1")
    refused("per_swap_block_s", LinearCostModel, *WRONG)
    refused("step_s", ConstantCostModel, *WRONG, 0)


@pytest.mark.parametrize("name", ["host_overhead_s", "host_overhead_per_request_s"])
def test_host_overheads(name: str, llama: ModelConfig) -> None:
    refused(name, lambda **s: RooflineCostModel(llama, GPU, ParallelConfig(), **s), *WRONG)


@pytest.mark.parametrize("name", ["block_size", "sliding_window", "hybrid_window"])
def test_counts_of_a_cost_model(name: str, llama: ModelConfig) -> None:
    refused(name, lambda **s: RooflineCostModel(llama, GPU, ParallelConfig(), **s), 0, -1, 1.5, nan)


def test_two_windows_exclude_each_other(llama: ModelConfig) -> None:
    with pytest.raises(ConfigError, match=r"sliding_window=64 and .*hybrid_window=32 exclude"):
        RooflineCostModel(llama, GPU, ParallelConfig(), sliding_window=64, hybrid_window=32)


@pytest.mark.parametrize("name", [f.name for f in fields(KernelConstants) if f.name != "source"])
def test_kernel_constants(name: str) -> None:
    wrong = (1.0, nan) if name == "packs_query_heads" else (nan, -1.0, True)
    refused(name, lambda **s: replace(KernelConstants(), **s), *wrong)
    if name not in ("roofline_exponent", "packs_query_heads"):
        refused(name, lambda **s: replace(KernelConstants(), **s), inf)


@pytest.mark.parametrize(
    "name", [f.name for f in fields(HardwareConfig) if f.type in (int, float, float | None)]
)
def test_hardware(name: str) -> None:
    refused(name, lambda **s: replace(GPU, **s), nan, inf, 0, -1, 1e300, True)


@pytest.mark.parametrize(
    "name",
    ["num_hidden_layers", "hidden_size", "num_attention_heads", "head_dim", "vocab_size"],
)
def test_model_sizes(name: str, llama: ModelConfig) -> None:
    refused(name, lambda **s: replace(llama, **s), nan, inf, 0, 1.5, 10**15, True)


def test_experts_need_sizes(llama: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="num_experts_per_tok=0"):
        replace(llama, num_experts=8, moe_intermediate_size=64)
    with pytest.raises(ConfigError, match="moe_intermediate_size=0"):
        replace(llama, num_experts=8, num_experts_per_tok=2)
    with pytest.raises(ConfigError, match="num_dense_layers=33"):
        replace(llama, num_dense_layers=33)


@pytest.mark.parametrize("text", ["many", [], {}])
def test_a_config_json_with_a_size_that_is_none(text: Any) -> None:
    config = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": text}
    with pytest.raises(ConfigError, match="num_attention_heads"):
        ModelConfig.from_hf_config(config | {"vocab_size": 100})


def test_cluster() -> None:
    refused("draft_cost", ClusterConfig, *WRONG)
    refused("acceptance_rate", ClusterConfig, *WRONG)


@pytest.mark.parametrize("seconds", [-1.0, nan, inf])
def test_all_reduce_tables(tmp_path: Path, seconds: float) -> None:
    file = tmp_path / "all_reduce.parquet"
    rows = {"num_gpus": [2, 2], "message_size": [64, 128], "latency": [1.0, seconds]}
    pd.DataFrame(rows).to_parquet(file)
    with pytest.raises(ConfigError, match="for 256 bytes over 2 GPUs"):
        MeasuredAllReduce.load(file)


def test_all_reduce_tables_without_a_line_or_no_table_at_all(tmp_path: Path) -> None:
    file = tmp_path / "all_reduce.parquet"
    file.write_text("no table")
    with pytest.raises(ConfigError, match="cannot be read as a table"):
        MeasuredAllReduce.load(file)
    rows = {"num_gpus": [2, 4], "message_size": [64, 64], "latency": [1.0, 1.0]}
    pd.DataFrame(rows).to_parquet(file)
    with pytest.raises(ConfigError, match="no group of GPUs with two message sizes"):
        MeasuredAllReduce.load(file)
