"""The decode cohort: its calendars, and requests that leave and come back."""

from workbench.request import Request
from workbench.scheduler.decode_cohort import TRIM_AT, DecodeCohort


def member(cohort: DecodeCohort, name: str, wake: int, finish: int, computed: int = 10) -> Request:
    request = Request(name, 10, 100)
    request._num_computed_tokens = computed
    cohort.join(request, wake, finish)
    return request


def test_members_are_due_at_their_tick() -> None:
    cohort = DecodeCohort(uses_placeholders=False)
    a, b = member(cohort, "a", wake=1, finish=9), member(cohort, "b", wake=3, finish=9)
    assert cohort.due_next() == [a]
    assert cohort.due_next() == [a]  # asking changes nothing
    cohort.wake_after(a, 3)  # counted from now: tick 3
    assert cohort.due_next() == []
    cohort.schedule_tick()
    assert cohort.due_next() == []
    cohort.schedule_tick()
    assert cohort.due_next() == [b, a]


def test_a_member_ends_with_the_tick_that_returns_its_last_token() -> None:
    cohort = DecodeCohort(uses_placeholders=True)
    a, b = member(cohort, "a", wake=9, finish=2), member(cohort, "b", wake=9, finish=3)
    for _ in range(3):
        cohort.schedule_tick()
    assert cohort.return_tick(1.0) == []
    assert cohort.return_tick(2.0) == [a]
    assert a.num_output_tokens == 2
    assert list(a.token_times) == [1.0, 2.0]
    cohort.leave(a)
    assert cohort.return_tick(3.0) == [b]


def test_context_is_the_sum_of_computed_tokens() -> None:
    cohort = DecodeCohort(uses_placeholders=False)
    a, b = member(cohort, "a", 9, 9, computed=5), member(cohort, "b", 9, 9, computed=70)
    assert (cohort.size, cohort.context_tokens) == (2, 75)
    cohort.schedule_tick()
    assert cohort.context_tokens == 77 == a.num_computed_tokens + b.num_computed_tokens
    cohort.leave(a)
    assert (cohort.size, cohort.context_tokens) == (1, 71)
    cohort.leave(b)
    assert (cohort.size, cohort.context_tokens) == (0, 0)


def test_the_calendar_entries_of_one_who_left_count_for_nothing() -> None:
    cohort = DecodeCohort(uses_placeholders=False)
    a = member(cohort, "a", wake=1, finish=1)
    b = member(cohort, "b", wake=1, finish=1)
    cohort.leave(a)
    assert cohort.due_next() == [b]
    cohort.schedule_tick()
    assert cohort.return_tick(1.0) == [b]
    cohort.leave(b)
    c = member(cohort, "c", wake=1, finish=1)
    cohort.leave(c)
    assert cohort.due_next() == []
    cohort.schedule_tick()
    assert cohort.return_tick(2.0) == []


def test_one_who_leaves_and_comes_back_on_the_same_tick_is_due_and_ends_once() -> None:
    cohort = DecodeCohort(uses_placeholders=False)
    a = member(cohort, "a", wake=2, finish=2)
    b = member(cohort, "b", wake=2, finish=2)
    cohort.leave(a)
    cohort.join(a, ticks_to_wake=2, ticks_to_finish=2)
    cohort.schedule_tick()
    assert cohort.due_next() == [a, b]
    cohort.schedule_tick()
    assert cohort.return_tick(1.0) == []
    assert cohort.return_tick(2.0) == [b, a]
    assert a.num_output_tokens == 2


def test_one_who_comes_back_with_another_date_ends_at_the_new_one() -> None:
    cohort = DecodeCohort(uses_placeholders=False)
    a = member(cohort, "a", wake=1, finish=1)
    cohort.leave(a)
    cohort.join(a, ticks_to_wake=2, ticks_to_finish=2)
    assert cohort.due_next() == []
    cohort.schedule_tick()
    assert cohort.return_tick(1.0) == []
    assert cohort.due_next() == [a]
    cohort.schedule_tick()
    assert cohort.return_tick(2.0) == [a]


def test_joining_while_ticks_are_in_flight_counts_from_the_next_one() -> None:
    cohort = DecodeCohort(uses_placeholders=True)
    first = member(cohort, "first", 9, 9)
    cohort.schedule_tick()
    late = member(cohort, "late", 9, 9)
    assert late.num_in_flight_tokens == 0
    assert first.num_in_flight_tokens == first.num_output_placeholders == 1
    cohort.return_tick(1.0)
    assert late.num_output_tokens == 0
    assert list(late.token_times) == []
    cohort.schedule_tick()
    assert late.num_computed_tokens == 11
    cohort.return_tick(2.0)
    assert late.num_output_tokens == 1
    assert list(late.token_times) == [2.0]
    assert list(first.token_times) == [1.0, 2.0]


def test_a_long_run_keeps_few_times() -> None:
    cohort = DecodeCohort(uses_placeholders=False)
    members: list[Request] = []
    longest = 0
    for tick in range(100_000):
        if tick % 50 == 0:
            members.append(member(cohort, str(tick), wake=1, finish=700))
        cohort.schedule_tick()
        for request in cohort.return_tick(float(tick)):
            assert list(request.token_times) == [float(t) for t in range(tick - 699, tick + 1)]
            cohort.leave(request)
            members.remove(request)
        if tick % 77 == 0 and members:  # aborted
            cohort.leave(members.pop())
        longest = max(longest, len(cohort._return_times))
    assert longest <= 2 * TRIM_AT
    assert len(cohort._finish_calendar) <= len(members)


def test_ticks_in_a_row_are_ticks_one_by_one() -> None:
    cohorts = [DecodeCohort(uses_placeholders=False) for _ in range(2)]
    members = [member(cohort, "a", wake=3, finish=9) for cohort in cohorts]
    assert cohorts[0].num_quiet_ticks() == 2
    assert cohorts[0].num_quiet_ticks(after=3) == 5
    cohorts[0].run_ticks(2)
    cohorts[0].add_times([1.0, 2.0])
    for time in (1.0, 2.0):
        cohorts[1].schedule_tick()
        cohorts[1].return_tick(time)
    assert cohorts[0].due_next() == members[:1]
    for name in ("num_scheduled", "num_returned", "context_tokens"):
        assert getattr(cohorts[0], name) == getattr(cohorts[1], name)
    assert members[0].token_times == members[1].token_times
