"""Requests with which the model cannot go on: they end as errors, wherever they are meanwhile."""

from collections.abc import Sequence

import pytest

from tests.workbench.scheduler.small_schedulers import make_scheduler
from workbench.config import CacheConfig, SchedulerConfig
from workbench.kv_cache.block_hash import TokenBlockHashes
from workbench.kv_cache.eviction import EvictionPolicy, FIFOEviction
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput, SchedulerOutput
from workbench.request import Request, RequestStatus
from workbench.scheduler.scheduler import Scheduler

REASON = "NaN among the logits of token 3"


def add(scheduler: Scheduler, *lengths: tuple[int, int]) -> list[Request]:
    requests = [Request("abcdef"[i], *length) for i, length in enumerate(lengths)]
    for request in requests:
        scheduler.add_request(request, 0.0)
    return requests


def answer(
    scheduler: Scheduler,
    output: SchedulerOutput,
    failed: Sequence[str] = (),
    rows: Sequence[list[int]] | None = None,
) -> EngineCoreOutputs:
    answer = ModelRunnerOutput(rows, failed=dict.fromkeys(failed, REASON))
    outputs = scheduler.update_from_output(output, answer, 1.0)
    scheduler.check_integrity()
    return outputs


def has_failed(scheduler: Scheduler, request: Request, outputs: EngineCoreOutputs) -> bool:
    assert request.status is RequestStatus.FINISHED_ERROR
    assert request.stop_reason == REASON
    assert not request.block_ids
    assert request not in scheduler.running
    assert request not in scheduler.waiting
    return outputs.finished.count(request) == 1


@pytest.mark.parametrize("has_row", [False, True])
def test_a_member_of_the_cohort_fails_alone(has_row: bool) -> None:
    scheduler = make_scheduler()
    requests = add(scheduler, (8, 20), (9, 20), (10, 20))
    for _ in range(4):
        output = scheduler.schedule(0.0)
        answer(scheduler, output, rows=[[7]] * len(output.num_scheduled_tokens))
    output = scheduler.schedule(0.0)
    outputs = answer(scheduler, output, ["b"], [[7], [7] if has_row else [], [7]])
    assert has_failed(scheduler, requests[1], outputs)
    assert [r.request_id for r, _ in outputs.new_tokens()] == ["a", "c"]
    assert [requests[i].num_output_tokens for i in (0, 2)] == [5, 5]
    while scheduler.has_requests:
        output = scheduler.schedule(0.0)
        answer(scheduler, output, rows=[[7]] * len(output.num_scheduled_tokens))
    assert [r.finish_reason for r in requests] == ["length", "error", "length"]
    assert [len(r.output_token_ids) for r in (requests[0], requests[2])] == [20, 20]
    assert scheduler.kv_cache_manager.num_used_blocks == 0


def test_the_device_is_told_that_a_failed_request_has_gone() -> None:
    scheduler = make_scheduler()
    add(scheduler, (8, 20), (9, 20))
    answer(scheduler, scheduler.schedule(0.0), ["a"])
    assert scheduler.schedule(0.0).finished_req_ids == ["a"]


@pytest.mark.parametrize("failed", ["a", "b"])
def test_one_of_a_mixed_batch_fails(failed: str) -> None:
    scheduler = make_scheduler(max_num_batched_tokens=16)
    (first,) = add(scheduler, (8, 20))
    for _ in range(3):
        answer(scheduler, scheduler.schedule(0.0), rows=[[7]])
    second = Request("b", 40, 20)
    scheduler.add_request(second, 0.0)
    output = scheduler.schedule(0.0)
    assert output.num_scheduled_tokens == {"a": 1, "b": 15}
    outputs = answer(scheduler, output, [failed], [[7] if failed == "b" else [], []])
    gone, other = (first, second) if failed == "a" else (second, first)
    assert has_failed(scheduler, gone, outputs)
    assert other.status is RequestStatus.RUNNING
    left = {"a": {"b": 16}, "b": {"a": 1}}[failed]
    assert scheduler.schedule(0.0).num_scheduled_tokens == left


def test_one_whose_lengths_alone_are_simulated_fails() -> None:
    scheduler = make_scheduler()
    requests = add(scheduler, (8, 3), (8, 3))
    answer(scheduler, scheduler.schedule(0.0))
    outputs = answer(scheduler, scheduler.schedule(0.0), ["a"])
    assert has_failed(scheduler, requests[0], outputs)
    outputs = answer(scheduler, scheduler.schedule(0.0))
    assert [r.finish_reason for r in outputs.finished] == ["length"]


def test_an_unknown_or_finished_request_fails_in_vain() -> None:
    scheduler = make_scheduler()
    (request,) = add(scheduler, (8, 1))
    output = scheduler.schedule(0.0)
    scheduler.abort_requests(["a"])
    outputs = answer(scheduler, output, ["a", "nobody"], [[7]])
    assert outputs.finished == []
    assert request.finish_reason == "abort"


def test_a_failed_request_ends_once_though_it_ends_by_length_too() -> None:
    scheduler = make_scheduler()
    (request,) = add(scheduler, (8, 2))
    answer(scheduler, scheduler.schedule(0.0), rows=[[7]])
    outputs = answer(scheduler, scheduler.schedule(0.0), ["a"], [[7]])
    assert has_failed(scheduler, request, outputs)
    assert not scheduler.kv_cache_manager.num_used_blocks


def test_one_with_a_step_in_flight_fails_and_its_late_row_is_nobodys() -> None:
    scheduler = make_scheduler(async_scheduling=True)
    requests = add(scheduler, (8, 20), (8, 20))
    outputs = [scheduler.schedule(0.0), scheduler.schedule(0.0)]
    for _ in range(5):
        answer(scheduler, outputs.pop(0), rows=[[7], [7]])
        outputs.append(scheduler.schedule(0.0))
    got = answer(scheduler, outputs.pop(0), ["a"], [[], [7]])
    assert has_failed(scheduler, requests[0], got)
    num_tokens = requests[0].num_output_tokens
    outputs.append(scheduler.schedule(0.0))
    got = answer(scheduler, outputs.pop(0), rows=[[7], [7]])
    assert got.finished == []
    assert requests[0].num_output_tokens == num_tokens
    assert [r.request_id for r, _ in got.new_tokens()] == ["b"]
    assert requests[1].num_output_tokens == 7


def preempted_in_flight() -> tuple[Scheduler, list[SchedulerOutput], list[Request]]:
    """The second of two requests waits again while a row of it is still under way."""
    scheduler = make_scheduler(8, async_scheduling=True)
    requests = add(scheduler, (12, 40), (12, 40))
    in_flight = [scheduler.schedule(0.0)]
    while not requests[1].num_preemptions:
        in_flight.append(scheduler.schedule(0.0))
        if requests[1].num_preemptions:
            break
        answer(scheduler, in_flight.pop(0), rows=[[7], [7]])
    return scheduler, in_flight, requests


def test_one_that_was_preempted_fails_by_its_late_row() -> None:
    scheduler, in_flight, requests = preempted_in_flight()
    assert requests[1].status is RequestStatus.PREEMPTED
    outputs = answer(scheduler, in_flight.pop(0), ["b"], [[7], []])
    assert has_failed(scheduler, requests[1], outputs)
    assert requests[0].status is RequestStatus.RUNNING
    while scheduler.has_requests:
        in_flight.append(scheduler.schedule(0.0))
        output = in_flight.pop(0)
        answer(scheduler, output, rows=[[7]] * len(output.num_scheduled_tokens))
        assert requests[0].num_output_tokens <= 40
        if requests[0].num_preemptions:
            break  # outgrown: the cache holds 32 tokens


@pytest.mark.parametrize("row", [[], [7], [7, 7, 7]])
def test_one_with_drafts_fails_whatever_was_accepted(row: list[int]) -> None:
    scheduler = make_scheduler(num_speculative_tokens=2)
    requests = add(scheduler, (8, 20), (8, 20))
    drafts = {"a": [1, 1], "b": [1, 1]}
    for _ in range(2):
        output = scheduler.schedule(0.0)
        rows = [[7] for _ in output.num_scheduled_tokens]
        scheduler.update_from_output(output, ModelRunnerOutput(rows, drafts), 0.0)
    output = scheduler.schedule(0.0)
    assert output.num_scheduled_tokens == {"a": 3, "b": 3}
    failed = ModelRunnerOutput([row, [7, 7]], drafts, failed={"a": REASON})
    outputs = scheduler.update_from_output(output, failed, 1.0)
    scheduler.check_integrity()
    assert has_failed(scheduler, requests[0], outputs)
    assert requests[1].num_output_tokens == 4
    assert scheduler.schedule(0.0).num_scheduled_tokens == {"b": 3}


@pytest.mark.parametrize("eviction", [None, FIFOEviction()])
def test_what_a_failed_request_computed_serves_nobody(eviction: EvictionPolicy | None) -> None:
    scheduler = Scheduler(
        SchedulerConfig(max_model_len=256, max_num_batched_tokens=64),
        CacheConfig(block_size=4),
        100,
        eviction=eviction,
    )

    def new(request_id: str, prompt: list[int]) -> Request:
        request = Request(request_id, len(prompt), 8, prompt_token_ids=prompt)
        request.block_hashes = TokenBlockHashes(prompt, request.output_token_ids, 4)
        scheduler.add_request(request, 0.0)
        return request

    shared = list(range(8))
    good = new("good", [*shared, 50])
    answer(scheduler, scheduler.schedule(0.0), rows=[[7]])
    bad = new("bad", [*shared, *range(20, 32)])
    output = scheduler.schedule(0.0)
    assert bad.num_cached_tokens == 8
    answer(scheduler, output, ["bad"], [[7], []])
    again = new("again", [*shared, *range(20, 32)])
    answer(scheduler, scheduler.schedule(0.0), rows=[[7], [7]])
    assert again.num_cached_tokens == 8  # what the good one holds, and nothing of the bad one
    assert not good.is_finished
