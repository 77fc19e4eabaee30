"""Replicas that step together."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from simulator.cluster import ClusterConfig
from simulator.cost_models.base import CostModel
from simulator.cost_models.roofline import RooflineCostModel
from simulator.hardware import HardwareConfig
from simulator.model_config import load_model_preset
from simulator.parallel import ParallelConfig
from simulator.simulation import Simulation
from workbench.config import CacheConfig, SchedulerConfig
from workbench.metrics import RunResult
from workbench.router import RoundRobin
from workbench.step_profile import StepShape
from workbench.workload.base import ListWorkload, WorkloadRequest

GPU = HardwareConfig("gpu", 80, 2000, 300, 100, 300, 32)


class Counting(CostModel):
    """A millisecond a token of the busiest rank; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def step_time(self, shape: StepShape) -> float:
        return 1e-3 * shape.num_tokens

    def group_step_time(self, shapes: Sequence[StepShape]) -> float:
        self.asked.append(tuple(shape.num_tokens for shape in shapes))
        return super().group_step_time(shapes)


def run(
    requests: Sequence[tuple[float, int, int]], model: CostModel, is_async: bool = False
) -> RunResult:
    """Two ranks in turn get requests (arrival, prompt, answer)."""
    workload = ListWorkload(
        [WorkloadRequest(str(i), at, p, o) for i, (at, p, o) in enumerate(requests)]
    )
    return Simulation(
        workload=workload,
        scheduler_config=SchedulerConfig(max_model_len=4096, async_scheduling=is_async),
        cache_config=CacheConfig(),
        num_blocks=2000,
        cost_model=model,
        router=RoundRobin(),
        cluster_config=ClusterConfig(replicas=2, lock_step=True),
    ).run()


@pytest.mark.parametrize("is_async", [False, True])
def test_steps_of_all_ranks_begin_and_end_together(is_async: bool) -> None:
    random = np.random.default_rng(3)
    requests = [
        (float(at), int(p), int(o))
        for at, p, o in zip(
            np.sort(random.uniform(0, 2, 60)),
            random.integers(1, 200, 60),
            random.integers(1, 40, 60),
            strict=True,
        )
    ]
    result = run(requests, Counting(), is_async)
    assert all(record.finish_reason == "length" for record in result.records)
    assert [record.output_tokens for record in result.records] == [o for _, _, o in requests]
    steps = result.steps
    spans = {
        number: {
            (start, duration)
            for start, duration, replica in zip(
                steps.start_s, steps.duration_s, steps.replica, strict=True
            )
            if replica == number
        }
        for number in (0, 1)
    }
    every = sorted(spans[0] | spans[1])
    assert spans[0] & spans[1], "both ranks worked at the same time"
    for (start, duration), (following, _) in pairwise(every):
        assert following >= start + duration - 1e-12, "two steps overlap"


def test_a_rank_without_work_takes_part_with_an_empty_batch() -> None:
    model = Counting()
    result = run([(0.0, 100, 3)], model)
    assert model.asked == [(100, 0), (1, 0), (1, 0)]
    assert result.records[0].finish_s == pytest.approx(0.102)


def test_the_slower_rank_sets_the_pace() -> None:
    result = run([(0.0, 100, 2), (0.0, 300, 2)], Counting())
    assert [r.token_times_s[0] for r in result.records] == pytest.approx([0.3, 0.3])


def test_experts_get_the_tokens_of_all_ranks() -> None:
    model = load_model_preset("qwen3_30b_a3b")
    parallel = ParallelConfig(data_parallel_size=2, enable_expert_parallel=True)
    cost = RooflineCostModel(model, GPU, parallel)
    small, large, idle = StepShape(8, 800, [], 8), StepShape(0, 0, [(2000, 0)], 1), StepShape()
    alike = cost.group_step_time([large, large])
    assert alike == pytest.approx(cost.step_time(large))
    assert cost.group_step_time([large, idle]) < cost.group_step_time([large, small]) < alike
    assert cost.group_step_time([small, small]) == pytest.approx(cost.step_time(small))


def test_small_steps_are_padded_to_the_largest_rank_when_graphs_are_captured() -> None:
    model = load_model_preset("qwen3_30b_a3b")
    parallel = ParallelConfig(data_parallel_size=2, enable_expert_parallel=True)
    plain = RooflineCostModel(model, GPU, parallel)
    padded = RooflineCostModel(model, GPU, parallel, captured_tokens=256)
    few, many = StepShape(1, 100, [], 1), StepShape(64, 6400, [], 64)
    assert padded.group_step_time([few, many]) > plain.group_step_time([few, many])
    assert padded.step_time(StepShape(60, 6000, [], 60)) == pytest.approx(
        plain.step_time(StepShape(64, 6000, [], 60)), rel=0.01
    )
