"""A request's life: its ends, its counts, and the same counts read through a decode cohort."""

import pytest

from workbench.request import Request, RequestStatus
from workbench.scheduler.decode_cohort import DecodeCohort


def test_a_new_request_has_computed_nothing() -> None:
    request = Request("a", 10, 5, 2.5, priority=-1, client_id="c", session_id="s", deadline=9.0)
    assert request.status is RequestStatus.WAITING
    assert not request.is_finished
    assert request.finish_reason is None
    assert request.first_scheduled_time is None
    assert request.num_computed_tokens == request.num_output_tokens == 0
    assert request.num_tokens == 10
    assert request.num_preemptions == request.num_cached_tokens == 0
    assert list(request.token_times) == []
    assert (request.priority, request.client_id, request.session_id) == (-1, "c", "s")
    assert (request.arrival_time, request.deadline) == (2.5, 9.0)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (RequestStatus.WAITING, None),
        (RequestStatus.RUNNING, None),
        (RequestStatus.PREEMPTED, None),
        (RequestStatus.FINISHED_STOPPED, "stop"),
        (RequestStatus.FINISHED_LENGTH_CAPPED, "length"),
        (RequestStatus.FINISHED_ABORTED, "abort"),
        (RequestStatus.FINISHED_IGNORED, "ignored"),
        (RequestStatus.FINISHED_ERROR, "error"),
    ],
)
def test_every_end_has_a_reason(status: RequestStatus, reason: str | None) -> None:
    request = Request("a", 1, 1)
    request.status = status
    assert request.finish_reason == reason
    assert request.is_finished == (reason is not None)


def test_requests_are_told_apart_by_identity() -> None:
    a, b = Request("a", 1, 1), Request("a", 1, 1)
    assert a != b
    assert len({a, b, a}) == 2


def test_a_request_takes_no_attribute_it_does_not_know() -> None:
    with pytest.raises(AttributeError):
        Request("a", 1, 1).num_compuetd_tokens = 3  # type: ignore[attr-defined]


def test_it_shows_itself_in_one_line() -> None:
    text = repr(Request("a", 10, 5))
    assert text == "Request('a', WAITING, prompt=10, output=0/5, computed=0)"


@pytest.mark.parametrize("uses_placeholders", [False, True])
def test_counts_follow_the_cohort_and_stay_when_it_is_left(uses_placeholders: bool) -> None:
    cohort = DecodeCohort(uses_placeholders)
    request = Request("a", 10, 50)
    request._num_computed_tokens = 10
    cohort.join(request, ticks_to_wake=40, ticks_to_finish=40)
    for _ in range(3):
        cohort.schedule_tick()
    cohort.return_tick(0.5)
    cohort.return_tick(0.75)

    def counts() -> tuple[object, ...]:
        return (
            request.num_computed_tokens,
            request.num_output_tokens,
            request.num_tokens,
            request.num_in_flight_tokens,
            request.num_output_placeholders,
            list(request.token_times),
        )

    expected = (13, 2, 12, 1, int(uses_placeholders), [0.5, 0.75])
    assert counts() == expected
    cohort.leave(request)
    cohort.schedule_tick()
    cohort.return_tick(1.0)
    assert counts() == expected
