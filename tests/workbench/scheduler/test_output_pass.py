"""What a step's rows mean for requests that have ended or fail."""

import pytest

from workbench.config import CacheConfig, SchedulerConfig
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.request import Request, RequestStatus
from workbench.scheduler.scheduler import Scheduler

STOP = 9


def make_scheduler(is_async: bool, num_speculative_tokens: int = 0) -> Scheduler:
    return Scheduler(
        SchedulerConfig(
            max_num_seqs=4,
            max_num_batched_tokens=64,
            max_model_len=64,
            async_scheduling=is_async,
            num_speculative_tokens=num_speculative_tokens,
        ),
        CacheConfig(block_size=4),
        32,
    )


def add(scheduler: Scheduler, request_id: str, max_tokens: int = 8, stops: bool = False) -> Request:
    stop_token_ids = frozenset({STOP}) if stops else frozenset()
    request = Request(
        request_id, 5, max_tokens, prompt_token_ids=[1] * 5, stop_token_ids=stop_token_ids
    )
    scheduler.add_request(request, 0.0)
    return request


def answer(output: SchedulerOutput, **tokens: int) -> ModelRunnerOutput:
    """One token a row: 7, or what is given by request id."""
    return ModelRunnerOutput([[tokens.get(name, 7)] for name in output.num_scheduled_tokens])


@pytest.mark.parametrize("stops", [False, True])
def test_rows_behind_the_end_are_nobodys(stops: bool) -> None:
    scheduler = make_scheduler(is_async=True)
    a, b = add(scheduler, "a", stops=stops), add(scheduler, "b")
    in_flight = [scheduler.schedule(0.0), scheduler.schedule(0.0)]
    first = in_flight.pop(0)
    reply = answer(first, a=STOP) if stops else answer(first)
    scheduler.update_from_output(first, reply, 1.0)
    if not stops:
        scheduler.abort_requests(["a"])
    second = in_flight.pop(0)
    outputs = scheduler.update_from_output(second, answer(second), 2.0)
    assert [request.request_id for request, _ in outputs.new_tokens()] == ["b"]
    assert len(a.output_token_ids) == a.num_output_tokens == 1
    assert b.output_token_ids == [7, 7]
    scheduler.check_integrity()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("num_decodes", [0, 3])
@pytest.mark.parametrize("row", [[], [7]])
def test_a_failed_request_ends_as_an_error_and_nobody_else(
    is_async: bool, num_decodes: int, row: list[int]
) -> None:
    scheduler = make_scheduler(is_async)
    a, b = add(scheduler, "a"), add(scheduler, "b")
    for _ in range(num_decodes):
        output = scheduler.schedule(0.0)
        scheduler.update_from_output(output, answer(output), 1.0)
    output = scheduler.schedule(0.0)
    later = scheduler.schedule(0.0) if is_async else None
    reply = ModelRunnerOutput([row, [7]], failed={"a": "the logits are not numbers"})
    outputs = scheduler.update_from_output(output, reply, 2.0)
    assert outputs.finished == [a]
    assert a.status is RequestStatus.FINISHED_ERROR
    assert a.stop_reason == "the logits are not numbers"
    assert [request.request_id for request, _ in outputs.new_tokens()] == ["b"]
    if later is not None:
        outputs = scheduler.update_from_output(later, answer(later), 3.0)
        assert [request.request_id for request, _ in outputs.new_tokens()] == ["b"]
    assert a.num_output_tokens == len(a.output_token_ids) == num_decodes
    scheduler.check_integrity()
    while scheduler.has_requests:
        output = scheduler.schedule(0.0)
        if output.total_num_scheduled_tokens:
            scheduler.update_from_output(output, answer(output), 4.0)
        else:
            scheduler.update_from_output(output, ModelRunnerOutput([]), 4.0)
    assert b.num_output_tokens == 8
    assert scheduler.kv_cache_manager.num_used_blocks == 0


def test_a_request_that_fails_with_drafts_takes_none_of_them() -> None:
    scheduler = make_scheduler(is_async=False, num_speculative_tokens=2)
    a = add(scheduler, "a")
    output = scheduler.schedule(0.0)
    reply = answer(output)
    reply.draft_token_ids = {"a": [1, 2]}
    scheduler.update_from_output(output, reply, 1.0)
    output = scheduler.schedule(0.0)
    assert output.scheduled_spec_decode_tokens == {"a": [1, 2]}
    outputs = scheduler.update_from_output(
        output, ModelRunnerOutput([[]], failed={"a": "why"}), 2.0
    )
    assert outputs.finished == [a]
    assert a.output_token_ids == [7]
    scheduler.check_integrity()


def test_tokens_behind_a_stop_within_a_row_are_dropped() -> None:
    scheduler = make_scheduler(is_async=False, num_speculative_tokens=2)
    a = add(scheduler, "a", stops=True)
    output = scheduler.schedule(0.0)
    reply = answer(output)
    reply.draft_token_ids = {"a": [STOP, 2]}
    scheduler.update_from_output(output, reply, 1.0)
    output = scheduler.schedule(0.0)
    outputs = scheduler.update_from_output(output, ModelRunnerOutput([[STOP, 2, 3]]), 2.0)
    assert [(r.request_id, ids) for r, ids in outputs.new_tokens()] == [("a", [STOP])]
    assert a.output_token_ids == [7, STOP]
    assert a.stop_reason == STOP
