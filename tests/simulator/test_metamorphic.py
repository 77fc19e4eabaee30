"""What must happen to a result when the input is changed in a known way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost_models.kernel_constants import constants_for
from simulator.cost_models.linear import ConstantCostModel
from simulator.cost_models.roofline import RooflineCostModel
from simulator.hardware import HardwareConfig
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from simulator.simulation import ClusterConfig
from tests.simulator.small_runs import linear_cost_model, random_requests, simulate
from workbench.metrics import RunResult
from workbench.router import LeastOutstanding, LongestPrefix, RoundRobin
from workbench.workload.base import WorkloadRequest

Load = Callable[[str], HardwareConfig]
WORLDS: list[dict[str, Any]] = [
    {},
    {"num_blocks": 40},
    {"num_blocks": 40, "num_host_blocks": 60, "scheduler": {"preemption_mode": "swap"}},
    {"scheduler": {"async_scheduling": True, "max_num_seqs": 8}},
    {"scheduler": {"num_speculative_tokens": 2}},
    {"cluster": ClusterConfig(replicas=3), "router": LeastOutstanding},
    {"cluster": ClusterConfig(replicas=2), "router": LongestPrefix},
]
NAMES = ["plain", "tight", "swap", "async", "spec", "least_outstanding", "longest_prefix"]
ALL = pytest.mark.parametrize("world", WORLDS, ids=NAMES)


def run(workload: Any, cost_model: Any, world: dict[str, Any]) -> RunResult:
    return simulate(workload, cost_model, **world | {"router": world.get("router", RoundRobin)()})


def times(result: RunResult) -> np.ndarray[Any, Any]:
    """Every time in a result."""
    parts = [np.array(result.steps.start_s), np.array(result.steps.duration_s)]
    for r in result.records:
        parts.append(np.array([r.arrival_s, r.first_scheduled_s, r.finish_s]))
        parts.append(r.token_times_s)
    return np.concatenate(parts)


def decisions(result: RunResult) -> tuple[Any, ...]:
    """Everything in a result that is not a time."""
    columns = {name: c.tolist() for name, c in result.steps.columns() if not name.endswith("_s")}
    records = [(r.request_id, r.replica, r.cached_tokens, r.preemptions) for r in result.records]
    return columns, records, result.counters


class ClosedLoop:
    """Five users, each with a request under way or in thought."""

    is_open_loop = False

    def __init__(self, requests: Sequence[WorkloadRequest], think_s: float) -> None:
        self._requests = [replace(r, arrival_time=0.0) for r in requests]
        self._next = 5
        self._think_s = think_s
        self.num_requests = len(requests)

    def initial(self) -> list[WorkloadRequest]:
        return self._requests[:5]

    def after_finish(self, request_id: str, now: float) -> list[WorkloadRequest]:
        following = self._requests[self._next : self._next + 1]
        self._next += 1
        return [replace(r, arrival_time=now + self._think_s) for r in following]


def roofline(
    llama: ModelConfig, gpu: HardwareConfig, speed: float, parallel: ParallelConfig
) -> RooflineCostModel:
    return RooflineCostModel(
        llama,
        gpu.scaled(speed),
        parallel,
        constants=constants_for(gpu.name).scaled(speed),
        host_overhead_s=0.001 / speed,
        host_overhead_per_request_s=1e-5 / speed,
    )


@ALL
@pytest.mark.parametrize("parallel", [ParallelConfig(), ParallelConfig(4)], ids=["tp1", "tp4"])
def test_twice_the_speed_halves_every_service_time(
    world: dict[str, Any], parallel: ParallelConfig, llama: ModelConfig, hardware: Load
) -> None:
    gpu = hardware("a100")
    at_once = random_requests(seed=1, count=40, rate=None, num_groups=3)
    slow, fast = (run(at_once, roofline(llama, gpu, s, parallel), world) for s in (1.0, 2.0))
    assert decisions(slow) == decisions(fast)
    np.testing.assert_allclose(times(fast), times(slow) / 2, rtol=1e-9)


@ALL
def test_twice_the_speed_halves_a_closed_loop(
    world: dict[str, Any], llama: ModelConfig, hardware: Load
) -> None:
    gpu, requests = hardware("h100"), random_requests(seed=2, count=40, num_groups=3)
    slow, fast = (
        run(ClosedLoop(requests, 0.5 / s), roofline(llama, gpu, s, ParallelConfig()), world)
        for s in (1.0, 2.0)
    )
    assert decisions(slow) == decisions(fast)
    np.testing.assert_allclose(times(fast), times(slow) / 2, rtol=1e-9)


@ALL
@pytest.mark.parametrize("factor", [0.25, 2.0])
def test_arrivals_and_costs_scaled_together_scale_every_time(
    world: dict[str, Any], factor: float
) -> None:
    # A power of two, so that floating point does not round differently: equality to the bit.
    requests = random_requests(seed=3, count=80, rate=40.0, num_groups=3)
    scaled = [replace(r, arrival_time=r.arrival_time * factor) for r in requests]
    a = run(requests, linear_cost_model(), world)
    b = run(scaled, linear_cost_model(factor), world)
    assert decisions(a) == decisions(b)
    assert (times(a) * factor).tolist() == times(b).tolist()
    assert a.duration_s * factor == b.duration_s


def test_a_later_start_moves_every_time_and_nothing_else() -> None:
    requests = random_requests(seed=4, count=60, rate=None)
    later = [replace(r, arrival_time=1024.0) for r in requests]
    a, b = (simulate(r, ConstantCostModel(2.0**-6), num_blocks=40) for r in (requests, later))
    assert decisions(a) == decisions(b)
    for before, after in zip(a.records, b.records, strict=True):
        assert (before.token_times_s + 1024.0).tolist() == after.token_times_s.tolist()


def test_the_names_of_requests_decide_nothing() -> None:
    requests = random_requests(seed=5, count=60, rate=50.0, num_groups=2)
    renamed = [replace(r, request_id=f"x{7919 * i % 1009:04d}") for i, r in enumerate(requests)]
    a, b = (simulate(r, num_blocks=40) for r in (requests, renamed))
    assert a.steps == b.steps
    names = {r.request_id: n.request_id for r, n in zip(requests, renamed, strict=True)}
    finish = {r.request_id: r.finish_s for r in b.records}
    assert all(finish[names[r.request_id]] == r.finish_s for r in a.records)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    prompt=st.integers(1, 200),
    output=st.integers(1, 60),
    count=st.integers(30, 90),
    num_blocks=st.integers(40, 200),
)
def test_one_more_replica_under_overload_never_lowers_throughput(
    prompt: int, output: int, count: int, num_blocks: int
) -> None:
    # For equal requests, all waiting from the start. For unequal ones round robin may well deal
    # all the long ones to one replica, and then more replicas can take longer.
    requests = [WorkloadRequest(f"{i:03d}", 0.0, prompt, output) for i in range(count)]
    durations = [
        simulate(requests, cluster=ClusterConfig(replicas=n), num_blocks=num_blocks).duration_s
        for n in (1, 2, 3, 4)
    ]
    for fewer, more in pairwise(durations):
        assert more <= fewer * (1 + 1e-12)
    assert durations[3] < durations[0]


def test_round_robin_over_more_replicas_can_be_slower_for_unequal_requests() -> None:
    requests = [WorkloadRequest(f"{i:03d}", 0.0, 1, 300 if i % 3 == 0 else 3) for i in range(24)]
    two, three = (
        simulate(
            requests,
            ConstantCostModel(1.0),
            scheduler={"max_num_seqs": 1},
            cluster=ClusterConfig(replicas=n),
        ).duration_s
        for n in (2, 3)
    )
    assert three > two


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), extra=st.integers(0, 500), shared=st.booleans())
def test_more_blocks_than_are_ever_used_change_nothing(seed: int, extra: int, shared: bool) -> None:
    # Fewer preemptions with more blocks is no law: a larger cache admits more requests, which may
    # then grow into each other (see below). What holds: above the peak of an unhindered run the
    # number of blocks plays no part, and nobody is preempted. With prefix caching, the room for
    # blocks that outlive their requests is part of that peak.
    requests = random_requests(seed, 40, rate=40.0, num_groups=2 if shared else 0)
    plenty = simulate(requests, num_blocks=5000)
    peak = max(plenty.steps.kv_blocks_used)
    if shared:
        peak = sum(-(-(r.num_prompt_tokens + r.num_output_tokens) // 16) for r in requests)
    result = simulate(
        requests, num_blocks=peak + extra, scheduler={"scheduler_reserve_full_isl": False}
    )
    assert result.counters["preemptions"] == 0
    assert result.records == plenty.records
    assert result.steps == plenty.steps


def test_more_blocks_can_mean_more_preemptions() -> None:
    requests = [WorkloadRequest(str(i), 0.0, 30, 60) for i in range(4)]
    preemptions = [
        simulate(requests, num_blocks=n, cache={"enable_prefix_caching": False}).counters[
            "preemptions"
        ]
        for n in range(6, 25)
    ]
    assert preemptions[-1] == 0
    assert any(more > fewer for fewer, more in pairwise(preemptions))


def test_a_larger_cache_finds_no_less_of_a_shared_prefix() -> None:
    ids = [tuple(range(100 * g, 100 * g + 10)) for g in range(8)]
    requests = [
        WorkloadRequest(str(i), 5.0 * i, 161, 2, hash_ids=ids[i * i % 8], hash_block_size=16)
        for i in range(60)
    ]
    hits = [
        simulate(requests, num_blocks=n).counters["prefix_hit_tokens"] for n in range(12, 100, 8)
    ]
    assert hits == sorted(hits)
    assert hits[0] < hits[-1]


def test_chunked_prefill_bounds_the_longest_step_and_the_longest_gap() -> None:
    requests = [
        WorkloadRequest("chat", 0.0, 10, 200),
        *(WorkloadRequest(f"doc{i}", 0.2 * (i + 1), 450, 2) for i in range(4)),
    ]
    gaps = []
    for budget in (512, 128, 32):
        result = simulate(requests, scheduler={"max_num_batched_tokens": budget})
        chat = next(r for r in result.records if r.request_id == "chat")
        gaps.append(float(np.diff(chat.token_times_s).max()))
        assert max(result.steps.scheduled_tokens) <= budget
        assert gaps[-1] <= max(result.steps.duration_s) * (1 + 1e-9)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > gaps[-1]
