"""Every kind of world: tokens are conserved, records agree with steps, shortcuts change nothing."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from simulator.replica import Replica
from simulator.simulation import ClusterConfig, Policies
from tests.simulator.same_results import assert_same
from tests.simulator.small_runs import (
    BATCH_POLICIES,
    Follow,
    make_simulation,
    random_requests,
    simulate,
)
from workbench.kv_cache.eviction import LFUEviction
from workbench.router import LeastOutstanding, LongestPrefix, RoundRobin, Router
from workbench.scheduler.preemption import LeastProgress, MostBlocks
from workbench.scheduler.queues.earliest_deadline import EarliestDeadlineQueue
from workbench.scheduler.queues.fair_share import FairShareQueue

WORLDS: list[tuple[str, dict[str, Any]]] = [
    ("plain", {}),
    ("small_batch", {"scheduler": {"max_num_seqs": 3, "max_num_batched_tokens": 40}}),
    ("tight", {"num_blocks": 36, "policies": Policies(queue=FairShareQueue)}),
    ("tight_fcfs", {"num_blocks": 36, "scheduler": {"scheduler_reserve_full_isl": False}}),
    (
        "tight_priority",
        {"num_blocks": 36, "scheduler": {"policy": "priority"}, "cache": {"block_size": 8}},
    ),
    (
        "swap",
        {
            "num_blocks": 36,
            "num_host_blocks": 40,
            "scheduler": {"preemption_mode": "swap"},
            "policies": Policies(victim_policy=MostBlocks),
        },
    ),
    ("async", {"scheduler": {"async_scheduling": True}, "num_blocks": 40}),
    ("pipeline", {"pipeline_parallel_size": 3, "num_blocks": 60}),
    ("hybrid", {"cache": {"hybrid_window": 40}, "num_blocks": 60}),
    ("window", {"cache": {"sliding_window": 24, "block_size": 8}, "num_blocks": 40}),
    ("interval", {"scheduler": {"prefill_schedule_interval": 3}}),
    ("no_caching", {"cache": {"enable_prefix_caching": False}, "num_blocks": 50}),
    ("prefill_first", {"policies": Policies(batch_policy=BATCH_POLICIES["prefill_first"])}),
    (
        "sarathi_lfu",
        {
            "num_blocks": 40,
            "policies": Policies(batch_policy=BATCH_POLICIES["sarathi"], eviction=LFUEviction),
        },
    ),
    (
        "static_deadline",
        {
            "num_blocks": 64,
            "policies": Policies(
                batch_policy=BATCH_POLICIES["static"],
                queue=lambda: EarliestDeadlineQueue(default_slack_s=5.0),
                victim_policy=LeastProgress,
            ),
        },
    ),
]
NAMES = [name for name, _ in WORLDS]
ALL = pytest.mark.parametrize("world", [world for _, world in WORLDS], ids=NAMES)


@ALL
def test_shortcuts_change_nothing(world: dict[str, Any]) -> None:
    requests = random_requests(seed=8, count=60, rate=100.0, num_groups=4)
    cases: list[tuple[int, Any, Callable[[], Router]]] = [
        (1, requests, RoundRobin),
        (3, requests, LongestPrefix),
        (2, Follow(requests), LeastOutstanding),
    ]
    for replicas, workload, router in cases:
        settings = world | {"cluster": ClusterConfig(replicas=replicas)}
        every_row_and_step, *others = (
            simulate(workload, router=router(), use_cohort=cohort, decode_ahead=ahead, **settings)
            for cohort, ahead in ((False, False), (True, False), (True, True))
        )
        for other in others:
            assert_same(every_row_and_step, other)


@ALL
def test_tokens_in_are_tokens_out(world: dict[str, Any]) -> None:
    requests = random_requests(seed=1, count=150, rate=60.0, num_groups=3)
    simulation = make_simulation(requests, cluster=ClusterConfig(replicas=2), **world)
    result = simulation.run()
    by_id = {request.request_id: request for request in requests}
    assert sorted(r.request_id for r in result.records) == sorted(by_id)
    for record in result.records:
        request = by_id[record.request_id]
        assert record.finish_reason == "length"
        assert record.prompt_tokens == request.num_prompt_tokens
        assert record.output_tokens == request.num_output_tokens == len(record.token_times_s)
    steps, records = result.steps, result.records
    assert all(
        total == prefill + decode
        for total, prefill, decode in zip(
            steps.scheduled_tokens, steps.prefill_tokens, steps.decode_tokens, strict=True
        )
    )
    assert sum(steps.preempted) == sum(r.preemptions for r in records)
    assert sum(steps.preempted) == result.counters["preemptions"]
    # Every token leaves by one row. A row gives a token when it computes the last known one:
    # a prompt's last token, or a generated one.
    computed = sum(steps.scheduled_tokens)
    needed = sum(r.prompt_tokens + r.output_tokens - 1 - r.cached_tokens for r in records)
    if not sum(steps.preempted):
        assert computed == needed
        # A prompt's last token belongs to the prompt, though it gives the first of the answer.
        assert sum(steps.decode_tokens) == sum(r.output_tokens - 1 for r in records)
        assert result.counters["prefix_hit_tokens"] == sum(r.cached_tokens for r in records)
        assert result.counters["prefix_queries_tokens"] == (
            sum(r.prompt_tokens for r in records) if simulation_caches(world) else 0
        )
    elif world.get("num_host_blocks"):
        assert computed >= needed - sum(r.prompt_tokens for r in records if r.preemptions)
    else:
        assert computed + result.counters["prefix_hit_tokens"] >= needed
    for replica in simulation.replicas:
        check_is_idle(replica, world.get("num_blocks", 10_000))


def check_is_idle(replica: Replica, num_blocks: int) -> None:
    """Nobody waits or runs, and nobody holds a block."""
    scheduler = replica.core.scheduler
    scheduler.check_integrity()
    assert scheduler.kv_cache_manager.num_used_blocks == 0
    assert scheduler.kv_cache_manager.num_free_blocks == num_blocks
    assert not scheduler.has_requests
    assert replica.num_running == replica.num_waiting == replica.num_outstanding_tokens == 0
    assert replica.kv_cache_usage == 0.0


def simulation_caches(world: dict[str, Any]) -> bool:
    return bool(world.get("cache", {}).get("enable_prefix_caching", True))


@ALL
def test_records_and_steps_agree(world: dict[str, Any]) -> None:
    requests = random_requests(seed=2, count=120, rate=60.0)
    result = simulate(requests, cluster=ClusterConfig(replicas=2), **world)
    records, steps = result.records, result.steps
    arrivals = [r.arrival_s for r in records]
    assert arrivals == sorted(arrivals) == [r.arrival_time for r in requests]
    assert len(steps) == len(steps.replica)
    starts: dict[int, set[float]] = {n: set() for n in (0, 1)}
    ends: dict[int, set[float]] = {n: set() for n in (0, 1)}
    for n, start, duration in zip(steps.replica, steps.start_s, steps.duration_s, strict=True):
        starts[n].add(start)
        ends[n].add(start + duration)
    is_piped = world.get("pipeline_parallel_size", 1) > 1
    is_async = world.get("scheduler", {}).get("async_scheduling", False)
    for record in records:
        assert record.first_scheduled_s is not None
        assert record.arrival_s <= record.first_scheduled_s < record.token_times_s[0]
        if not is_piped and not is_async:
            assert record.first_scheduled_s in starts[record.replica]
        assert ends[record.replica].issuperset(record.token_times_s.tolist())
        assert (np.diff(record.token_times_s) > 0).all()
        assert record.finish_s == record.token_times_s[-1]
    for n in (0, 1):
        mine = [i for i in range(len(steps)) if steps.replica[i] == n]
        for i, j in pairwise(mine):
            share = steps.duration_s[i] / world.get("pipeline_parallel_size", 1)
            assert steps.start_s[j] >= steps.start_s[i] + share * (1 - 1e-9)
    assert result.duration_s >= max(r.finish_s for r in records if r.finish_s)
    assert max(steps.kv_blocks_used) <= world.get("num_blocks", 10_000)
    assert max(steps.running) <= world.get("scheduler", {}).get("max_num_seqs", 256)


@ALL
def test_same_seed_same_result(world: dict[str, Any]) -> None:
    requests = random_requests(seed=3, count=40, rate=60.0, num_groups=2)
    assert_same(*(simulate(requests, **world) for _ in range(2)))
