"""What the scheduler asks its queue and its victim policy, and what they are told."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.workbench.scheduler.small_schedulers import add, make_scheduler, run, step
from workbench.kv_cache.eviction import EvictionPolicy, FIFOEviction, LFUEviction
from workbench.request import Request
from workbench.scheduler.length_predictor import LengthPredictor
from workbench.scheduler.preemption import MostBlocks, VictimPolicy
from workbench.scheduler.queues.fair_share import FairShareQueue
from workbench.scheduler.queues.shortest_job_first import ShortestJobFirstQueue
from workbench.scheduler.request_queue import FCFSQueue, PriorityQueue, RequestQueue


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
