"""A simulation: settings, progress, order of steps, preemption, swapping, steps in advance."""

from typing import Any

import pytest

from simulator.cost_models.linear import ConstantCostModel
from simulator.simulation import ClusterConfig, Policies
from tests.simulator.small_runs import BATCH_POLICIES, make_simulation, random_requests, simulate
from workbench.errors import ConfigError
from workbench.kv_cache.block_pool import BlockPool
from workbench.kv_cache.eviction import LFUEviction
from workbench.scheduler.request_queue import PriorityQueue
from workbench.step_profile import StepShape
from workbench.workload.base import WorkloadRequest


def test_steps_are_logged_in_the_order_in_which_they_began() -> None:
    requests = random_requests(seed=6, count=60, rate=60.0)
    for settings in ({}, {"scheduler": {"async_scheduling": True}}, {"pipeline_parallel_size": 2}):
        steps = simulate(requests, cluster=ClusterConfig(replicas=3), **settings).steps
        assert list(steps.start_s) == sorted(steps.start_s), settings


SHORT_OF_BLOCKS: list[dict[str, Any]] = [
    {"scheduler": {"scheduler_reserve_full_isl": False}},
    {"scheduler": {"async_scheduling": True}},
    {"scheduler": {"async_scheduling": True, "num_speculative_tokens": 3}},
    {"scheduler": {"num_speculative_tokens": 2}},
    {"pipeline_parallel_size": 2},
    {"cluster": ClusterConfig(replicas=2)},
    {"cluster": ClusterConfig(replicas=2), "pipeline_parallel_size": 2},
]


@pytest.mark.parametrize("settings", SHORT_OF_BLOCKS)
@pytest.mark.parametrize("seed", range(8))
def test_every_preemption_is_in_a_step(settings: dict[str, Any], seed: int) -> None:
    requests = random_requests(seed, 40, rate=60.0)
    result = simulate(
        requests, num_blocks=28 + seed, cache={"enable_prefix_caching": False}, **settings
    )
    told = result.counters["preemptions"]
    assert told > 0
    assert result.steps.preempted.sum() == sum(r.preemptions for r in result.records) == told
    assert (result.steps.scheduled_tokens > 0).all()


def test_one_request_takes_a_prefill_step_and_a_step_a_token() -> None:
    result = simulate([WorkloadRequest("a", 1.5, 700, 4)], ConstantCostModel(0.25), scheduler=LONG)
    record = result.records[0]
    # 700 prompt tokens with a budget of 512 are two steps.
    assert record.token_times_s.tolist() == [2.0, 2.25, 2.5, 2.75]
    assert (record.first_scheduled_s, record.finish_s) == (1.5, 2.75)
    assert list(result.steps.scheduled_tokens) == [512, 188, 1, 1, 1]
    assert list(result.steps.prefill_tokens) == [512, 188, 0, 0, 0]
    assert list(result.steps.decode_tokens) == [0, 0, 1, 1, 1]
    assert list(result.steps.kv_blocks_used) == [32, 44, 44, 44, 44]
    assert result.duration_s == 2.75


LONG = {"max_model_len": 1024}


def test_progress_is_told_now_and_then_and_at_the_end() -> None:
    told: list[tuple[int, int, float]] = []
    requests = random_requests(0, 600, rate=2000.0, outputs=(1, 3))
    result = make_simulation(requests).run(lambda *numbers: told.append(numbers))
    assert [done for done, _, _ in told] == [256, 512, 600]
    assert {total for _, total, _ in told} == {600}
    assert told[-1][2] == result.duration_s


def test_a_cost_model_for_every_replica_or_one_for_all() -> None:
    requests = [WorkloadRequest(str(i), 0.0, 10, 4) for i in range(4)]
    two = ClusterConfig(replicas=2)
    models = [ConstantCostModel(1.0), ConstantCostModel(2.0)]
    result = simulate(requests, models, cluster=two)
    assert [r.finish_s for r in result.records] == [4.0, 8.0, 4.0, 8.0]
    with pytest.raises(ConfigError, match="3 cost models for 2 replicas: give one for all"):
        simulate(requests, [*models, ConstantCostModel(3.0)], cluster=two)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicas": 0}, "replicas=0 must be at least 1"),
        ({"replicas": "2"}, "replicas='2' must be of type int"),
        ({"acceptance_rate": 1.5}, r"acceptance_rate=1.5 must be in \[0, 1\]"),
        ({"draft_cost": -0.5}, r"draft_cost=-0.5 must be a finite number of at least 0"),
    ],
)
def test_cluster_settings_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClusterConfig(**values)


def test_a_request_is_not_scheduled_before_it_arrives() -> None:
    # now + (arrival - now) is not always the arrival
    assert 0.13 + (1.89 - 0.13) < 1.89
    requests = [WorkloadRequest("a", 0.13, 5, 2), WorkloadRequest("b", 1.89, 5, 2)]
    for record in simulate(requests, ConstantCostModel(0.01)).records:
        assert record.first_scheduled_s == record.arrival_s


def test_asynchronous_scheduling_takes_the_same_decisions_one_step_ahead() -> None:
    requests = [WorkloadRequest(str(i), 0.0, 20, 10 + i) for i in range(5)]
    plain, ahead = (simulate(requests, scheduler={"async_scheduling": on}) for on in (False, True))
    assert plain.records == ahead.records
    assert list(plain.steps.scheduled_tokens) == list(ahead.steps.scheduled_tokens)
    assert list(plain.steps.start_s) == list(ahead.steps.start_s)


def test_swapping_costs_its_copies_and_saves_the_recomputation() -> None:
    class Swapper(ConstantCostModel):
        num_swapped = 0

        def step_time(self, shape: StepShape) -> float:
            self.num_swapped += shape.num_swap_blocks
            return super().step_time(shape) + 10.0 * shape.num_swap_blocks

    requests = [WorkloadRequest(str(i), 0.0, 60, 60) for i in range(3)]
    runs = {}
    for mode, host in (("recompute", 0), ("swap", 100), ("swap", 0)):
        cost_model = Swapper(1.0)
        settings: dict[str, Any] = {"num_blocks": 16, "num_host_blocks": host}
        result = simulate(
            requests,
            cost_model,
            scheduler={"preemption_mode": mode},
            **settings,
            cache={"enable_prefix_caching": False},
        )
        assert all(r.output_tokens == 60 for r in result.records)
        assert sum(r.preemptions for r in result.records) == result.counters["preemptions"] > 0
        assert sum(result.steps.duration_s) == len(result.steps) + 10.0 * cost_model.num_swapped
        runs[mode, host] = sum(result.steps.scheduled_tokens), cost_model.num_swapped
    minimum = 3 * (60 + 60 - 1)
    computed, swapped = runs["swap", 100]
    assert computed == minimum
    assert swapped > 0
    assert swapped % 2 == 0  # what went out came back
    assert runs["recompute", 0][0] > minimum
    # Without room on the host a victim is recomputed.
    assert runs["swap", 0] == runs["recompute", 0]
    assert runs["recompute", 0][1] == 0


def test_every_replica_has_policies_of_its_own() -> None:
    policies = Policies(
        queue=PriorityQueue, eviction=LFUEviction, batch_policy=BATCH_POLICIES["static"]
    )
    simulation = make_simulation(
        random_requests(0, 4), policies=policies, cluster=ClusterConfig(replicas=2)
    )
    a, b = (replica.core.scheduler for replica in simulation.replicas)
    assert a.waiting is not b.waiting
    assert isinstance(a.waiting, PriorityQueue)
    one, other = a.kv_cache_manager.pool, b.kv_cache_manager.pool
    assert isinstance(one, BlockPool)
    assert isinstance(other, BlockPool)
    assert one.eviction is not other.eviction
