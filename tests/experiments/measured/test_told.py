"""What a measured run's files say of its server."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.measured.outcome import fitted_constants
from experiments.measured.prices import prices_of
from experiments.measured.run_files import MeasuredRun
from experiments.measured.system import System, system_of
from simulator.memory import block_bytes
from workbench.errors import ConfigError
from workbench.step_profile import StepShape

LLAMA, MIXTURE = "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B-Instruct-2507"
HARDWARE = {"device_name": "NVIDIA RTX PRO 6000 Blackwell Server Edition"}


def server(
    name: str = LLAMA,
    given: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    **meta: Any,
) -> System:
    whole = {"model": name, "engine_kwargs": given or {}, "hardware": HARDWARE} | meta
    return system_of(MeasuredRun(Path("run"), whole, config or {}, pd.DataFrame(), None))


def test_blocks_of_several_ranks_are_told_in_one_sum() -> None:
    ranks = {"data_parallel_size": 2, "enable_expert_parallel": True}
    told = server(MIXTURE, ranks, kv_cache={"num_gpu_blocks": 60_000})
    assert (told.replicas, told.num_blocks, told.told_blocks) == (2, 29_999, True)
    assert server(kv_cache={"num_gpu_blocks": 60_000.0}).num_blocks == 59_999


def test_memory_that_was_given_is_memory_that_is_used() -> None:
    assert server(given={"num_gpu_blocks_override": 300}).num_blocks == 299
    eight = server(given={"kv_cache_memory_bytes": 8 * 2**30})
    assert eight.num_blocks == 8 * 2**30 // block_bytes(eight.model, eight.parallel) - 1


def test_graphs_are_those_that_were_captured() -> None:
    def sizes(**compilation: Any) -> tuple[int, ...]:
        return server(resolved_config={"compilation_config": compilation}).graph_sizes

    assert sizes(cudagraph_capture_sizes=[1, 64, 128], max_cudagraph_capture_size=128) == (
        1, 64, 128,
    )  # fmt: skip
    assert sizes(cudagraph_capture_sizes=[]) == ()
    assert sizes(cudagraph_mode=0, cudagraph_capture_sizes=[1, 2]) == ()
    assert sizes(cudagraph_mode=[2, 1], max_cudagraph_capture_size=4) == (1, 2, 4)
    assert max(server(given={"max_num_seqs": 512}).graph_sizes) == 512
    assert max(server(given={"max_num_seqs": 512, "max_num_batched_tokens": 64}).graph_sizes) == 64
    assert server(given={"enforce_eager": True}).graph_sizes == ()


def test_degrees_count_as_they_were_given() -> None:
    own = {"parallel_config": {"data_parallel_size": 1, "tensor_parallel_size": 2}}
    system = server(given={"data_parallel_size": 2}, resolved_config=own)
    assert (system.replicas, system.parallel.tensor_parallel_size) == (2, 2)
    cluster = {"nodes": [{"instances": [{"tp_size": 2}]}]}
    assert server(config=cluster).parallel.tensor_parallel_size == 2
    given = {"tensor_parallel_size": 1}
    assert server(given=given, config=cluster).parallel.tensor_parallel_size == 1


def test_what_was_fitted_for_spread_experts_is_told() -> None:
    def told(**given: Any) -> set[str]:
        system = server(MIXTURE, given)
        prices = prices_of(system, "none", Path("nowhere"), 0.0)
        return set(fitted_constants(system, prices, 0.0))

    spread = told(data_parallel_size=2, enable_expert_parallel=True)
    names = {"cached_memory_held", "cached_memory_faster", "cached_memory_reached"}
    assert spread - told(data_parallel_size=2) == names


def test_weights_of_eight_bits() -> None:
    for system in (server(given={"quantization": "fp8"}), server(f"{LLAMA}-Instruct-FP8")):
        assert (system.model.dtype, system.model.kv_cache_dtype) == ("fp8", "bfloat16")
    keys = {"cache_config": {"cache_dtype": "fp8_e4m3"}}
    assert server(resolved_config=keys).model.kv_cache_dtype == "fp8"


@pytest.mark.parametrize(("change", "said"), [
    ({"name": "Qwen/Qwen3-32B-AWQ"}, "quantization=awq"),
    ({"given": {"quantization": "mxfp4"}}, "quantization=mxfp4"),
    ({"given": {"speculative_config": {"method": "ngram"}}}, "speculative_config"),
    ({"kv_cache": {"num_gpu_blocks": 10.5}}, "num_gpu_blocks=10.5"),
    ({"name": "microsoft/phi-4"}, "one of llama3_70b, llama3_8b"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        server(**change)
    assert "\n" not in str(caught.value)


def test_a_server_that_waits_for_its_host_pays_for_it() -> None:
    def step(is_async: bool) -> tuple[float, dict[str, Any]]:
        system = server(given={"async_scheduling": is_async})
        prices = prices_of(system, "none", Path("nowhere"), 0.0)
        seconds = prices.cost_model.step_time(StepShape(100, 10_000, [], 100))
        return seconds, fitted_constants(system, prices, 0.0)

    (hidden, without), (waiting, told) = step(True), step(False)
    assert waiting - hidden == pytest.approx(1.3e-3 + 100 * 30e-6)
    assert told.keys() - without.keys() == {"host_overhead_s", "host_overhead_per_request_s"}
