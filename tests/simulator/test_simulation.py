"""The whole simulated world: conservation, order, ends, decode cohort, pipelines, speculation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from simulator.cost_models.linear import ConstantCostModel
from simulator.simulation import ClusterConfig, Policies
from tests.simulator.small_runs import (
    BATCH_POLICIES,
    linear_cost_model,
    make_simulation,
    random_requests,
    simulate,
)
from workbench.errors import ConfigError, CostModelError
from workbench.kv_cache.block_pool import BlockPool
from workbench.kv_cache.eviction import BeladyEviction, LFUEviction, LRUEviction
from workbench.metrics import RequestColumns, RunResult, RunStoppedError, StepLog
from workbench.router import LeastOutstanding, LongestPrefix, RoundRobin, Router
from workbench.scheduler.preemption import LeastProgress, MostBlocks
from workbench.scheduler.queues.earliest_deadline import EarliestDeadlineQueue
from workbench.scheduler.queues.fair_share import FairShareQueue
from workbench.scheduler.request_queue import PriorityQueue
from workbench.step_profile import StepShape
from workbench.workload.base import ListWorkload, WorkloadRequest

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


class Follow:
    """Half of the requests arrive on their own; each of them sets off one of the other half."""

    is_open_loop = False

    def __init__(self, requests: Sequence[WorkloadRequest]) -> None:
        half = len(requests) // 2
        self._initial = requests[:half]
        self._next = {str(i): requests[half + i] for i in range(half)}

    @property
    def num_requests(self) -> int:
        return len(self._initial) + len(self._next)

    def initial(self) -> Sequence[WorkloadRequest]:
        return self._initial

    def after_finish(self, request_id: str, now: float) -> list[WorkloadRequest]:
        request = self._next.get(request_id)
        think_s = 0.01 * (int(request_id) % 3)
        return [] if request is None else [replace(request, arrival_time=now + think_s)]


ALL = pytest.mark.parametrize("world", [world for _, world in WORLDS], ids=NAMES)


def rows(steps: StepLog) -> list[tuple[Any, ...]]:
    """The steps of each replica in their order."""
    columns = [column.tolist() for _, column in steps.columns()]
    return sorted(zip(*columns, strict=True), key=lambda row: row[0])


def assert_same(a: RunResult, b: RunResult) -> None:
    assert a.records == b.records
    assert rows(a.steps) == rows(b.steps)
    assert a.duration_s == b.duration_s
    assert a.counters == b.counters
    assert a.ignored == b.ignored


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


def test_steps_are_logged_in_the_order_in_which_they_began() -> None:
    requests = random_requests(seed=6, count=60, rate=60.0)
    for settings in ({}, {"scheduler": {"async_scheduling": True}}, {"pipeline_parallel_size": 2}):
        steps = simulate(requests, cluster=ClusterConfig(replicas=3), **settings).steps
        assert list(steps.start_s) == sorted(steps.start_s), settings


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
        scheduler = replica.core.scheduler
        scheduler.check_integrity()
        assert scheduler.kv_cache_manager.num_used_blocks == 0
        assert scheduler.kv_cache_manager.num_free_blocks == world.get("num_blocks", 10_000)
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


@ALL
def test_same_seed_same_result(world: dict[str, Any]) -> None:
    requests = random_requests(seed=3, count=40, rate=60.0, num_groups=2)
    assert_same(*(simulate(requests, **world) for _ in range(2)))


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


def test_a_shared_prefix_is_computed_once_and_routed_to_where_it_is() -> None:
    ids = tuple(range(10))
    requests = [
        WorkloadRequest(str(i), 10.0 * i, 168, 3, hash_ids=ids, hash_block_size=16)
        for i in range(4)
    ]
    result = simulate(
        requests, router=LongestPrefix(), cluster=ClusterConfig(replicas=3), num_blocks=40
    )
    assert [r.cached_tokens for r in result.records] == [0, 160, 160, 160]
    assert {r.replica for r in result.records[1:]} == {result.records[0].replica}
    assert result.counters["prefix_hit_tokens"] == 480
    assert result.counters["prefix_queries_tokens"] == 4 * 168


def test_real_tokens_share_and_an_answer_becomes_a_prefix() -> None:
    first, second = tuple(range(40)), tuple(range(32)) + (999,)
    requests = [
        WorkloadRequest("a", 0.0, 40, 2, prompt_token_ids=first),
        WorkloadRequest("b", 5.0, 33, 2, prompt_token_ids=second),
        WorkloadRequest(
            "c", 10.0, 32, 33, hash_ids=(7, 8), hash_block_size=16, output_hash_ids=(9, 10)
        ),
        WorkloadRequest("d", 15.0, 70, 1, hash_ids=(7, 8, 9, 10, 11), hash_block_size=16),
    ]
    for algorithm in ("sha256", "blake2b"):
        result = simulate(requests, cache={"prefix_caching_hash_algo": algorithm})
        assert [r.cached_tokens for r in result.records] == [0, 32, 0, 64]


def test_a_trace_block_size_may_be_larger_or_smaller_than_the_kv_block() -> None:
    requests = [
        WorkloadRequest(str(i), 5.0 * i, 65, 1, hash_ids=tuple(range(3)), hash_block_size=32)
        for i in range(2)
    ]
    for block_size, cached in ((8, 64), (16, 64), (32, 64), (64, 64), (128, 0)):
        result = simulate(requests, cache={"block_size": block_size})
        assert result.records[1].cached_tokens == cached, block_size
    with pytest.raises(ConfigError, match=r"block_size=48 .* hash_block_size=32: one must divide"):
        simulate(requests, cache={"block_size": 48})


def test_requests_that_can_never_run_are_ignored_and_the_others_go_on() -> None:
    requests = [
        WorkloadRequest("fits", 0.0, 100, 5),
        WorkloadRequest("too_long", 0.1, 512, 5),
        WorkloadRequest("too_big", 0.2, 161, 5),
        WorkloadRequest("empty", 0.3, 0, 5),
        WorkloadRequest("silent", 0.4, 5, 0),
        WorkloadRequest("outgrows", 0.5, 150, 50),
        WorkloadRequest("late", 0.6, 100, 5),
    ]
    for settings in ({}, {"scheduler": {"async_scheduling": True}}, {"pipeline_parallel_size": 2}):
        result = simulate(requests, num_blocks=10, **settings)
        ends = {r.request_id: r.finish_reason for r in result.records}
        assert ends == {
            "fits": "length",
            "too_long": "ignored",
            "too_big": "ignored",
            "empty": "ignored",
            "silent": "ignored",
            "outgrows": "error",
            "late": "length",
        }
        assert len(result.ignored) == 4
        too_long, too_big, empty, silent = result.ignored
        assert "'too_long'" in too_long
        assert "512" in too_long
        assert "max_model_len=512" in too_long
        assert "'too_big'" in too_big
        assert "161 tokens" in too_big
        assert "10 blocks of 16 tokens" in too_big
        assert "num_prompt_tokens=0" in empty
        assert "max_tokens=0" in silent
        outgrown = next(r for r in result.records if r.request_id == "outgrows")
        # 160 slots hold 150 prompt tokens and 10 of the answer; the 11th token needs no slot yet.
        assert outgrown.output_tokens == len(outgrown.token_times_s) == 11
        details = {r.request_id: r.finish_detail for r in result.records}
        outgrows = "161 tokens do not fit the whole KV cache of 10"
        assert str(details.pop("outgrows")).startswith(outgrows)
        assert [details.pop(name) for name in ("too_long", "too_big", "empty", "silent")] == (
            result.ignored
        )
        assert set(details.values()) == {None}
        ignored = next(r for r in result.records if r.request_id == "too_big")
        assert ignored.output_tokens == 0
        assert ignored.first_scheduled_s is None
        assert ignored.finish_s == ignored.arrival_s


def test_an_answer_ends_at_max_model_len() -> None:
    result = simulate([WorkloadRequest("a", 0.0, 500, 100)])
    assert result.records[0].output_tokens == 12
    assert result.records[0].finish_reason == "length"
    assert result.records[0].finish_detail == (
        "the answer was cut at 12 of 100 tokens: with a prompt of 500 they exceed "
        "max_model_len=512: raise the limit or ask for fewer tokens"
    )
    assert simulate([WorkloadRequest("a", 0.0, 500, 12)]).records[0].finish_detail is None


class Chain:
    """Each request comes when the one before it has ended, and the think time is over."""

    num_requests = 5
    is_open_loop = False

    def __init__(self, prompt: int, think_s: float) -> None:
        self._prompt = prompt
        self._think_s = think_s

    def initial(self) -> list[WorkloadRequest]:
        return [WorkloadRequest("0", 0.0, self._prompt, 3)]

    def after_finish(self, request_id: str, now: float) -> list[WorkloadRequest]:
        number = int(request_id) + 1
        if number == self.num_requests:
            return []
        return [WorkloadRequest(str(number), now + self._think_s, self._prompt, 3)]


def test_a_closed_loop_goes_on_when_a_request_ends_in_whatever_way() -> None:
    for prompt, reason in ((10, "length"), (600, "ignored")):
        result = simulate(Chain(prompt, 0.5), ConstantCostModel(0.25))
        assert [r.request_id for r in result.records] == list("01234")
        assert {r.finish_reason for r in result.records} == {reason}
        took = 0.75 if reason == "length" else 0.0
        expected = [i * (took + 0.5) for i in range(5)]
        assert [r.arrival_s for r in result.records] == expected


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


def test_extrapolated_steps_are_counted_and_a_refused_step_ends_the_run() -> None:
    class Wary(ConstantCostModel):
        is_bounded = True

        def step_time(self, shape: StepShape) -> float:
            if shape.num_tokens > 100:
                raise CostModelError(f"{shape.num_tokens} tokens are too many: ask for fewer")
            return super().step_time(shape)

        def is_extrapolated(self, shape: StepShape) -> bool:
            return shape.num_tokens > 10

    requests = [WorkloadRequest("a", 0.0, 50, 4), WorkloadRequest("b", 100.0, 11, 4)]
    result = simulate(requests, Wary(1.0))
    assert result.counters["extrapolated_steps"] == 2
    with pytest.raises(CostModelError, match="200 tokens are too many"):
        simulate([*requests, WorkloadRequest("c", 200.0, 200, 4)], Wary(1.0))


@pytest.mark.parametrize("ahead", [True, False])
def test_what_was_served_before_a_step_without_a_price_is_kept(ahead: bool) -> None:
    class Small(ConstantCostModel):
        def step_time(self, shape: StepShape) -> float:
            if shape.decode_context > 100:
                raise CostModelError("too many keys: measure them")
            return super().step_time(shape)

    requests = [WorkloadRequest("a", 0.0, 50, 4), WorkloadRequest("b", 10.0, 60, 90)]
    requests.append(WorkloadRequest("c", 500.0, 5, 5))
    with pytest.raises(RunStoppedError, match="too many keys: measure them") as caught:
        simulate(requests, Small(1.0), decode_ahead=ahead)
    result = caught.value.result
    RequestColumns.from_records(result.records).check_integrity()
    first, second = result.records
    assert (first.request_id, first.finish_reason, first.output_tokens) == ("a", "length", 4)
    assert (second.request_id, second.finish_reason) == ("b", "unfinished")
    assert second.finish_s is None
    assert "the run was stopped at" in str(second.finish_detail)
    steps = result.steps
    assert steps.start_s[-1] + steps.duration_s[-1] == result.duration_s
    assert second.output_tokens == len(second.token_times_s) == 41
    assert second.token_times_s[-1] == result.duration_s


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


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("num_drafts", "alpha"), [(1, 0.6), (3, 0.8), (5, 0.3), (2, 0.0), (4, 1.0)]
)
def test_tokens_of_a_verification_match_the_formula(
    num_drafts: int, alpha: float, is_async: bool
) -> None:
    # Leviathan et al., ICML 2023, equation 1: (1 - a^(k+1)) / (1 - a) tokens a verification.
    requests = [WorkloadRequest(str(i), 0.0, 20, 1500) for i in range(16)]
    result = simulate(
        requests,
        ConstantCostModel(1.0),
        scheduler={
            "num_speculative_tokens": num_drafts,
            "max_model_len": 2048,
            "async_scheduling": is_async,
        },
        cluster=ClusterConfig(acceptance_rate=alpha),
        seed=5,
    )
    counts = []
    for record in result.records:
        assert record.output_tokens == 1500
        _, tokens = np.unique(record.token_times_s, return_counts=True)
        assert tokens[0] == 1  # from the prompt
        counts.append(tokens[1:-1])  # the last one is cut off at the end of the answer
    tokens = np.concatenate(counts)
    assert tokens.max() <= num_drafts + 1
    expected = sum(alpha**i for i in range(num_drafts + 1))
    error = tokens.std() / np.sqrt(len(tokens))
    assert abs(tokens.mean() - expected) <= 4 * error


def test_a_seed_decides_the_accepted_drafts_and_nothing_else() -> None:
    requests = random_requests(4, 20)
    settings: dict[str, Any] = {"scheduler": {"num_speculative_tokens": 3}}
    same = [simulate(requests, seed=7, **settings) for _ in range(2)]
    assert_same(*same)
    other = simulate(requests, seed=8, **settings)
    assert other.records != same[0].records
    assert_same(simulate(requests, seed=7), simulate(requests, seed=8))


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


def test_an_oracle_asks_for_a_run_whose_future_is_known() -> None:
    oracle = Policies(eviction=BeladyEviction)
    with pytest.raises(ConfigError, match=r"set cluster\.replicas=1"):
        simulate(random_requests(0, 5), policies=oracle, cluster=ClusterConfig(replicas=2))
    with pytest.raises(ConfigError, match="eviction=lru"):
        simulate(Follow(random_requests(0, 5)), policies=oracle)


def test_an_oracle_that_is_told_its_future_hits_at_least_as_often_as_lru() -> None:
    requests = random_requests(seed=3, count=120, rate=4.0, num_groups=6)
    hits = {
        policy: simulate(
            requests,
            policies=Policies(eviction=policy),
            scheduler={"max_num_seqs": 1},
            num_blocks=60,
        ).counters["prefix_hit_tokens"]
        for policy in (BeladyEviction, LRUEviction)
    }
    assert 0 < hits[LRUEviction] <= hits[BeladyEviction]


def test_an_empty_workload_is_an_empty_result() -> None:
    result = simulate(ListWorkload([]), linear_cost_model())
    assert result.records == []
    assert len(result.steps) == 0
    assert result.duration_s == 0.0
