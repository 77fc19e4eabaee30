"""The scheduler through its public calls: order, budget, limits, preemption, errors."""

from itertools import pairwise

import pytest

from tests.workbench.scheduler.small_schedulers import add, make_scheduler, run, step
from workbench.errors import SchedulerError
from workbench.kv_cache.block_hash import KnownBlockHashes
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.request import Request, RequestStatus
from workbench.step_profile import StepShape


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


def test_a_step_knows_the_prompt_tokens_of_the_one_before() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=8)
    add(scheduler, Request("a", 12, 4), Request("b", 3, 9))
    outputs = run(scheduler)
    shapes = [output.shape for output in outputs]
    assert [bool(shape.prefills) for shape in shapes[:4]] == [True, True, False, False]
    assert [shape.prefill_tokens_before for shape in shapes[:4]] == [0, 8, 7, 0]
    for before, after in pairwise(outputs):
        assert after.shape.prefill_tokens_before == before.num_prefill_tokens


def test_steps_that_are_run_ahead_follow_steps_without_prompts() -> None:
    scheduler = make_scheduler()
    add(scheduler, Request("a", 12, 40))
    assert not step(scheduler).shape.prefill_tokens_before
    asked: list[int] = []

    def step_time(shape: StepShape) -> float:
        asked.append(shape.prefill_tokens_before)
        return 1.0

    assert scheduler.decode_ahead(0.0, 9.0, step_time) is None
    assert step(scheduler).shape.prefill_tokens_before == 12
    ahead = scheduler.decode_ahead(0.0, 9.0, step_time)
    assert ahead is not None
    assert len(ahead.starts) == 9
    assert not any(asked)
    assert not step(scheduler).shape.prefill_tokens_before
