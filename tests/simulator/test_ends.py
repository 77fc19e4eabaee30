"""How requests and runs end: ignored, cut, one setting off the next, stopped by a lacking price."""

from typing import Any

import pytest

from simulator.cost_models.linear import ConstantCostModel
from tests.simulator.small_runs import linear_cost_model, simulate
from workbench.errors import CostModelError
from workbench.metrics import RequestColumns, RunStoppedError
from workbench.step_profile import StepShape
from workbench.workload.base import ListWorkload, WorkloadRequest

REQUESTS = [
    WorkloadRequest("fits", 0.0, 100, 5),
    WorkloadRequest("too_long", 0.1, 512, 5),
    WorkloadRequest("too_big", 0.2, 161, 5),
    WorkloadRequest("empty", 0.3, 0, 5),
    WorkloadRequest("silent", 0.4, 5, 0),
    WorkloadRequest("outgrows", 0.5, 150, 50),
    WorkloadRequest("late", 0.6, 100, 5),
]
IGNORED = ("too_long", "too_big", "empty", "silent")
EVERY_DEPTH = pytest.mark.parametrize(
    "settings", [{}, {"scheduler": {"async_scheduling": True}}, {"pipeline_parallel_size": 2}]
)


@EVERY_DEPTH
def test_requests_that_can_never_run_are_ignored_and_the_others_go_on(
    settings: dict[str, Any],
) -> None:
    result = simulate(REQUESTS, num_blocks=10, **settings)
    records = {r.request_id: r for r in result.records}
    ends = dict.fromkeys(IGNORED, "ignored") | {
        "fits": "length",
        "outgrows": "error",
        "late": "length",
    }
    assert {name: record.finish_reason for name, record in records.items()} == ends
    # 160 slots hold 150 prompt tokens and 10 of the answer; the 11th token needs no slot yet.
    assert records["outgrows"].output_tokens == len(records["outgrows"].token_times_s) == 11
    ignored = records["too_big"]
    assert ignored.output_tokens == 0
    assert ignored.first_scheduled_s is None
    assert ignored.finish_s == ignored.arrival_s


@EVERY_DEPTH
def test_it_is_told_why_a_request_did_not_get_what_it_wanted(settings: dict[str, Any]) -> None:
    result = simulate(REQUESTS, num_blocks=10, **settings)
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
    details = {r.request_id: r.finish_detail for r in result.records}
    outgrows = "161 tokens do not fit the whole KV cache of 10"
    assert str(details.pop("outgrows")).startswith(outgrows)
    assert [details.pop(name) for name in IGNORED] == result.ignored
    assert set(details.values()) == {None}


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


def test_an_empty_workload_is_an_empty_result() -> None:
    result = simulate(ListWorkload([]), linear_cost_model())
    assert result.records == []
    assert len(result.steps) == 0
    assert result.duration_s == 0.0
