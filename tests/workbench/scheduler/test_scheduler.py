"""The scheduler through its public calls: order, budget, preemption, swapping, errors."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import SchedulerError
from workbench.kv_cache.block_hash import KnownBlockHashes
from workbench.kv_cache.eviction import EvictionPolicy, FIFOEviction, LFUEviction
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.request import Request, RequestStatus
from workbench.scheduler.length_predictor import LengthPredictor
from workbench.scheduler.preemption import MostBlocks, VictimPolicy
from workbench.scheduler.queues.fair_share import FairShareQueue
from workbench.scheduler.queues.shortest_job_first import ShortestJobFirstQueue
from workbench.scheduler.request_queue import FCFSQueue, PriorityQueue, RequestQueue
from workbench.scheduler.scheduler import Scheduler


def make_scheduler(
    num_blocks: int = 100, cache: dict[str, Any] | None = None, **settings: Any
) -> Scheduler:
    parts = {
        name: settings.pop(name)
        for name in ("queue", "victim_policy", "eviction", "num_host_blocks", "use_cohort")
        if name in settings
    }
    limits: dict[str, Any] = {"max_model_len": 256, "max_num_batched_tokens": 64}
    return Scheduler(
        SchedulerConfig(**limits | settings),
        CacheConfig(**{"block_size": 4} | (cache or {})),
        num_blocks,
        **parts,
    )


def add(scheduler: Scheduler, *requests: Request) -> None:
    for request in requests:
        scheduler.add_request(request, request.arrival_time)


def step(scheduler: Scheduler, rows: Sequence[list[int]] | None = None) -> SchedulerOutput:
    output = scheduler.schedule(0.0)
    scheduler.update_from_output(output, ModelRunnerOutput(rows), 0.0)
    scheduler.check_integrity()
    return output


def run(scheduler: Scheduler) -> list[SchedulerOutput]:
    outputs = []
    while scheduler.has_requests:
        outputs.append(step(scheduler))
        assert len(outputs) < 1000
    return outputs


def test_running_requests_come_before_waiting_ones_within_the_budget() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=10)
    add(scheduler, Request("a", 4, 9), Request("b", 25, 9), Request("c", 3, 9))
    assert step(scheduler).num_scheduled_tokens == {"a": 4, "b": 6}
    assert step(scheduler).num_scheduled_tokens == {"a": 1, "b": 9}
    assert step(scheduler).num_scheduled_tokens == {"a": 1, "b": 9}
    assert step(scheduler).num_scheduled_tokens == {"a": 1, "b": 1, "c": 3}


def test_an_output_tells_new_requests_once_and_new_blocks_as_they_come() -> None:
    scheduler = make_scheduler()
    add(scheduler, Request("a", 7, 9, prompt_token_ids=range(7)))
    first = step(scheduler)
    (new,) = first.scheduled_new_reqs
    assert (new.request_id, new.num_prompt_tokens, new.num_computed_tokens) == ("a", 7, 0)
    assert new.block_ids == ((1, 2),)
    assert list(new.prompt_token_ids or ()) == list(range(7))
    outputs = [first, *(step(scheduler) for _ in range(6))]
    assert not any(output.scheduled_new_reqs for output in outputs[1:])
    assert [o.new_block_ids.get("a") for o in outputs[1:]] == [None, [[3]], None, None, None, [[4]]]
    assert [o.step for o in outputs] == list(range(7))
    assert [o.num_prefill_tokens for o in outputs] == [7, 0, 0, 0, 0, 0, 0]
    assert outputs[1].shape.num_decodes == 1
    assert outputs[1].shape.decode_context == 8
    assert outputs[0].shape.prefills == [(7, 0)]


def test_outputs_are_compared_by_their_decisions() -> None:
    def first_step(num_prompt: int) -> SchedulerOutput:
        scheduler = make_scheduler()
        add(scheduler, Request("a", num_prompt, 9))
        return scheduler.schedule(0.0)

    assert first_step(5) == first_step(5)
    assert first_step(5) != first_step(6)
    assert "'num_scheduled_tokens': {'a': 5}" in repr(first_step(5))


def test_stop_tokens_end_a_request_and_drop_what_follows() -> None:
    scheduler = make_scheduler()
    request = Request("a", 4, 20, stop_token_ids=frozenset({7, 9}))
    other = Request("b", 4, 20)
    add(scheduler, request, other)
    for tokens in ([[3], [7]], [[4], [9]]):
        step(scheduler, tokens)
    step(scheduler, [[9], [1]])
    assert request.finish_reason == "stop"
    assert request.stop_reason == 9
    assert request.output_token_ids == [3, 4, 9]
    assert other.output_token_ids == [7, 9, 1]
    assert scheduler.running == [other]


def test_new_tokens_are_handed_out_by_request() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=6)
    a, b = Request("a", 4, 2), Request("b", 9, 2)
    add(scheduler, a, b)
    output = scheduler.schedule(0.0)
    outputs = scheduler.update_from_output(output, ModelRunnerOutput([[5], []]), 0.0)
    assert list(outputs.new_tokens()) == [(a, [5])]
    output = scheduler.schedule(0.0)
    scheduler.abort_requests(["b"])
    outputs = scheduler.update_from_output(output, ModelRunnerOutput([[6], []]), 0.0)
    assert list(outputs.new_tokens()) == [(a, [6])]
    assert outputs.finished == [a]


def test_the_last_admitted_gives_way_and_is_first_to_come_back() -> None:
    scheduler = make_scheduler(num_blocks=6, cache={"enable_prefix_caching": False})
    a, b, c = (Request(name, 7, 12) for name in "abc")
    add(scheduler, a, b, c)
    outputs = [step(scheduler) for _ in range(2)]
    assert not any(o.preempted_req_ids for o in outputs)
    assert scheduler.running == [a, b, c]
    output = step(scheduler)  # a needs a third block
    assert output.preempted_req_ids == ["c"]
    assert output.num_scheduled_tokens == {"a": 1, "b": 1}
    assert c.status is RequestStatus.PREEMPTED
    assert (c.num_computed_tokens, c.num_output_tokens, c.num_preemptions) == (0, 2, 1)
    late = Request("late", 1, 1)
    add(scheduler, late)
    assert list(scheduler.waiting) == [c, late]
    run(scheduler)
    assert [r.num_output_tokens for r in (a, b, c)] == [12, 12, 12]
    assert scheduler.num_preemptions == sum(r.num_preemptions for r in (a, b, c))


def test_priority_decides_who_waits_and_who_gives_way() -> None:
    scheduler = make_scheduler(num_blocks=6, policy="priority", cache={"block_size": 4})
    low, middle, high = (
        Request(name, 7, 12, priority=priority)
        for name, priority in (("low", 5), ("middle", 3), ("high", -1))
    )
    add(scheduler, low, middle, high)
    assert list(scheduler.waiting) == [high, middle, low]
    step(scheduler)
    assert scheduler.running == [high, middle, low]
    while not low.num_preemptions:
        step(scheduler)
    assert middle.num_preemptions == high.num_preemptions == 0
    run(scheduler)
    assert all(r.num_output_tokens == 12 for r in (low, middle, high))


class Spender(FIFOEviction):
    pass


@pytest.mark.parametrize("queue", [FCFSQueue, PriorityQueue, FairShareQueue])
@pytest.mark.parametrize("eviction", [Spender, LFUEviction])
def test_the_policies_given_are_the_ones_used_even_while_they_are_empty(
    queue: type[RequestQueue], eviction: type[EvictionPolicy]
) -> None:
    given_queue, given_eviction = queue(), eviction()
    for policy in ("fcfs", "priority"):
        scheduler = make_scheduler(policy=policy, queue=given_queue, eviction=given_eviction)
        assert scheduler.waiting is given_queue
        assert scheduler.kv_cache_manager.pool.eviction is given_eviction


def test_a_queue_policy_decides_who_is_next() -> None:
    class Longest(PriorityQueue):
        def key(self, request: Request) -> tuple[Any, ...]:
            return (-request.max_tokens,)

    scheduler = make_scheduler(max_num_seqs=1, queue=Longest())
    add(scheduler, *(Request(str(n), 4, n) for n in (3, 9, 6)))
    order = [new.request_id for o in run(scheduler) for new in o.scheduled_new_reqs]
    assert order == ["9", "6", "3"]


def test_fair_share_counts_the_tokens_that_were_served() -> None:
    queue = FairShareQueue(prompt_weight=1.0, output_weight=2.0)
    for use_cohort in (True, False):
        queue = FairShareQueue(prompt_weight=1.0, output_weight=2.0)
        scheduler = make_scheduler(queue=queue, use_cohort=use_cohort, max_num_batched_tokens=8)
        add(scheduler, Request("a", 20, 10, client_id="x"), Request("b", 6, 5, client_id="y"))
        run(scheduler)
        # A prompt's last token samples the first output token: it counts as a prompt token.
        assert queue.counter("x") == 20 + 2 * 9
        assert queue.counter("y") == 6 + 2 * 4


def test_who_is_not_scheduled_is_not_charged() -> None:
    counters = []
    for use_cohort in (True, False):
        queue = FairShareQueue(prompt_weight=1.0, output_weight=2.0)
        scheduler = make_scheduler(
            queue=queue,
            use_cohort=use_cohort,
            max_num_batched_tokens=8,
            prefill_schedule_interval=4,
        )
        add(scheduler, Request("a", 4, 30, client_id="x"), Request("b", 30, 5, client_id="y"))
        run(scheduler)
        counters.append((queue.counter("x"), queue.counter("y")))
    assert counters == [(4 + 2 * 29, 30 + 2 * 4)] * 2


def test_shortest_job_first_runs_short_answers_first() -> None:
    scheduler = make_scheduler(
        max_num_seqs=1, queue=ShortestJobFirstQueue(LengthPredictor(0.0, seed=0))
    )
    add(scheduler, *(Request(str(n), 4, n) for n in (30, 5, 10)))
    order = [new.request_id for o in run(scheduler) for new in o.scheduled_new_reqs]
    assert order == ["5", "10", "30"]


class Watcher(VictimPolicy):
    def __init__(self) -> None:
        self.bound: object = None
        self.asked: list[tuple[list[str], str, list[int]]] = []

    def bind(self, kv_cache_manager: Any) -> None:
        self.bound = kv_cache_manager

    def select(self, running: Sequence[Request], for_request: Request) -> Request:
        names = [r.request_id for r in running]
        self.asked.append((names, for_request.request_id, [r.num_computed_tokens for r in running]))
        return running[0]


@pytest.mark.parametrize("use_cohort", [True, False])
def test_a_victim_policy_sees_the_running_requests_as_they_are(use_cohort: bool) -> None:
    watcher = Watcher()
    scheduler = make_scheduler(
        num_blocks=6,
        victim_policy=watcher,
        use_cohort=use_cohort,
        cache={"enable_prefix_caching": False},
    )
    add(scheduler, *(Request(name, 7, 12) for name in "abc"))
    assert watcher.bound is scheduler.kv_cache_manager
    step(scheduler)
    step(scheduler)
    output = step(scheduler)
    assert watcher.asked == [(["a", "b", "c"], "a", [8, 8, 8])]
    assert output.preempted_req_ids == ["a"]
    assert output.num_scheduled_tokens == {"b": 1, "c": 1}


@pytest.mark.parametrize("is_async", [False, True])
def test_a_swapped_request_goes_on_where_it_was(is_async: bool) -> None:
    scheduler = make_scheduler(
        num_blocks=6,
        preemption_mode="swap",
        num_host_blocks=6,
        async_scheduling=is_async,
        cache={"enable_prefix_caching": False},
    )
    requests = [Request(name, 7, 12) for name in "abc"]
    add(scheduler, *requests)
    outputs: list[SchedulerOutput] = []
    in_flight: list[SchedulerOutput] = []
    while scheduler.has_requests or in_flight:
        if scheduler.has_requests:
            outputs.append(scheduler.schedule(0.0))
            in_flight.append(outputs[-1])
            if is_async and len(in_flight) < 2:
                continue
        scheduler.update_from_output(in_flight.pop(0), ModelRunnerOutput(), 0.0)
        scheduler.check_integrity()
        assert len(outputs) < 200
    assert [r.num_output_tokens for r in requests] == [12, 12, 12]
    out = [copy for o in outputs for copy in o.swap_out]
    back = [copy for o in outputs for copy in o.swap_in]
    assert [c.request_id for c in out] == [name for o in outputs for name in o.preempted_req_ids]
    assert len(out) == len(back) >= 1
    # What was thrown out last may come back first, but each request finds its own.
    for copies in (out, back):
        copies.sort(key=lambda copy: copy.request_id)
    for gone, come in zip(out, back, strict=True):
        assert gone.request_id == come.request_id
        assert gone.host_blocks == come.host_blocks
        assert len(come.device_blocks) == len(come.host_blocks)
    for o in outputs:
        copied = sum(len(c.device_blocks) for c in (*o.swap_out, *o.swap_in))
        assert o.shape.num_swap_blocks == copied
    # Nothing is computed twice.
    assert sum(o.total_num_scheduled_tokens for o in outputs) == 3 * 18


@pytest.mark.parametrize("num_host_blocks", [0, 1])
def test_a_full_host_falls_back_to_recomputation(num_host_blocks: int) -> None:
    scheduler = make_scheduler(
        num_blocks=6,
        preemption_mode="swap",
        num_host_blocks=num_host_blocks,
        cache={"enable_prefix_caching": False},
    )
    requests = [Request(name, 7, 12) for name in "abc"]
    add(scheduler, *requests)
    outputs = run(scheduler)
    assert [r.num_output_tokens for r in requests] == [12, 12, 12]
    assert not any(o.swap_out or o.swap_in or o.shape.num_swap_blocks for o in outputs)
    assert sum(o.total_num_scheduled_tokens for o in outputs) > 3 * 18


def test_an_abort_of_a_swapped_request_frees_its_host_blocks() -> None:
    scheduler = make_scheduler(num_blocks=6, preemption_mode="swap", num_host_blocks=6)
    requests = [Request(name, 7, 12) for name in "abc"]
    add(scheduler, *requests)
    while not requests[2].num_preemptions:
        step(scheduler)
    host = scheduler._state.host_cache
    assert host is not None
    assert host.num_free_blocks < 6
    assert scheduler.abort_requests(["c"]) == [requests[2]]
    assert host.num_free_blocks == 6
    run(scheduler)


def test_a_prefix_hit_spares_computation_and_is_told() -> None:
    scheduler = make_scheduler()
    keys = list("wxyz")
    first, second = (
        Request(name, 14, 3, block_hashes=KnownBlockHashes(i, keys, 3))
        for i, name in enumerate("ab")
    )
    add(scheduler, first)
    step(scheduler)
    add(scheduler, second)
    output = step(scheduler)
    assert output.scheduled_new_reqs[0].num_computed_tokens == 12
    assert output.num_scheduled_tokens == {"a": 1, "b": 2}
    assert second.num_cached_tokens == 12
    assert first.num_cached_tokens == 0


def test_a_request_that_is_not_watched_by_the_cache_shares_nothing() -> None:
    scheduler = make_scheduler()
    add(scheduler, Request("a", 14, 3), Request("b", 14, 3))
    outputs = run(scheduler)
    assert sum(o.total_num_scheduled_tokens for o in outputs) == 2 * 16


def test_the_watermark_does_not_bind_a_request_that_is_alone() -> None:
    scheduler = make_scheduler(num_blocks=10, watermark=0.5, cache={"enable_prefix_caching": False})
    add(scheduler, Request("a", 36, 2), Request("b", 4, 2))
    assert step(scheduler).num_scheduled_tokens == {"a": 36}
    assert "b" not in step(scheduler).num_scheduled_tokens
    assert run(scheduler)[0].num_scheduled_tokens == {"b": 4}


@pytest.mark.parametrize("interval", [2, 3, 5])
def test_prompts_come_at_their_interval_while_others_decode(interval: int) -> None:
    scheduler = make_scheduler(prefill_schedule_interval=interval, max_num_seqs=50)
    add(scheduler, Request("first", 4, 60))
    with_prompts = []
    for i in range(40):
        if i and i < 30:
            add(scheduler, Request(str(i), 4, 2))
        if step(scheduler).scheduled_new_reqs:
            with_prompts.append(i)
    gaps = {b - a for a, b in pairwise(with_prompts)}
    assert gaps == {interval}


def test_limits_of_the_batch() -> None:
    scheduler = make_scheduler(max_num_seqs=5, max_num_active_seqs=2)
    add(scheduler, *(Request(str(i), 4, 3) for i in range(6)))
    assert max(o.num_running for o in run(scheduler)) == 2


def test_a_long_prompt_is_cut_unless_it_is_alone() -> None:
    scheduler = make_scheduler(long_prefill_token_threshold=8)
    add(scheduler, Request("a", 40, 2))
    assert step(scheduler).num_scheduled_tokens == {"a": 40}
    add(scheduler, Request("b", 20, 9), Request("c", 20, 9))
    assert step(scheduler).num_scheduled_tokens == {"a": 1, "b": 8, "c": 8}
    assert step(scheduler).num_scheduled_tokens == {"b": 8, "c": 8}


def test_an_id_in_use_is_refused_until_it_is_free() -> None:
    scheduler = make_scheduler()
    add(scheduler, Request("a", 4, 2))
    with pytest.raises(SchedulerError, match="request_id='a' is in use: choose another one"):
        add(scheduler, Request("a", 4, 2))
    run(scheduler)
    add(scheduler, Request("a", 4, 2))
    assert scheduler.num_unfinished_requests == 1


def test_results_out_of_order_are_refused() -> None:
    scheduler = make_scheduler(async_scheduling=True)
    add(scheduler, Request("a", 4, 9))
    first, second = scheduler.schedule(0.0), scheduler.schedule(0.0)
    with pytest.raises(SchedulerError, match=r"step 1 came out of order: .*oldest first"):
        scheduler.update_from_output(second, ModelRunnerOutput(), 0.0)
    scheduler.update_from_output(first, ModelRunnerOutput(), 0.0)
    with pytest.raises(SchedulerError, match="results of step 0 came out of order"):
        scheduler.update_from_output(first, ModelRunnerOutput(), 0.0)
    scheduler.update_from_output(second, ModelRunnerOutput(), 0.0)
    with pytest.raises(SchedulerError, match="out of order"):
        scheduler.update_from_output(second, ModelRunnerOutput(), 0.0)


def test_an_answer_in_flight_at_a_preemption_is_delivered_once() -> None:
    scheduler = make_scheduler(
        num_blocks=6, async_scheduling=True, cache={"enable_prefix_caching": False}
    )
    requests = [Request(name, 7, 12) for name in "abc"]
    add(scheduler, *requests)
    pending = [scheduler.schedule(0.0)]
    counts: list[int] = []
    while pending:
        if scheduler.has_requests:
            pending.append(scheduler.schedule(0.0))
        before = requests[2].num_output_tokens
        scheduler.update_from_output(pending.pop(0), ModelRunnerOutput(), float(len(counts)))
        counts.append(requests[2].num_output_tokens - before)
        scheduler.check_integrity()
        assert len(counts) < 200
    assert requests[2].num_preemptions >= 1
    assert set(counts) <= {0, 1}
    assert [r.num_output_tokens for r in requests] == [12, 12, 12]
    assert [len(r.token_times) for r in requests] == [12, 12, 12]


@pytest.mark.parametrize("queue", [FCFSQueue, PriorityQueue])
@pytest.mark.parametrize(
    ("num_blocks", "lengths"),
    [(9, [(18, 11), (16, 17)]), (12, [(22, 20), (20, 11), (23, 16)]), (8, [(12, 20)] * 4)],
)
def test_requests_that_grow_into_each_other_do_not_throw_each_other_out_for_ever(
    queue: type[RequestQueue], num_blocks: int, lengths: list[tuple[int, int]]
) -> None:
    scheduler = make_scheduler(
        num_blocks=num_blocks,
        queue=queue(),
        victim_policy=MostBlocks(),
        scheduler_reserve_full_isl=False,
        long_prefill_token_threshold=7,
        cache={"enable_prefix_caching": False},
    )
    requests = [Request(str(i), *length) for i, length in enumerate(lengths)]
    add(scheduler, *requests)
    run(scheduler)
    assert [r.num_output_tokens for r in requests] == [num_output for _, num_output in lengths]
