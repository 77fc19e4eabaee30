"""When requests are sent: a fake clock, no network."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.bench.load import LoadGenerator, LoadLimits
from tests.experiments.bench.fake_time import FakeSender, FakeTimers
from workbench.workload.base import ListWorkload, WorkloadRequest


def items(*times):
    return ListWorkload([WorkloadRequest(f"r{i}", t, 8, 4) for i, t in enumerate(times)])


class Conversation:
    """One request sets the next off, a second after its end."""

    num_requests = 3
    is_open_loop = False

    def initial(self):
        return [WorkloadRequest("0", 0.5, 8, 4)]

    def after_finish(self, request_id, now):
        turn = int(request_id) + 1
        return [WorkloadRequest(str(turn), now + 1.0, 8, 4)] if turn < self.num_requests else []


def load(workload, seconds=1.0, until=math.inf, stop_at=None, **limits):
    timers = FakeTimers()
    sender = FakeSender(timers, lambda item: seconds)
    over = []
    generator = LoadGenerator(
        workload, sender, timers, LoadLimits(**limits), lambda: over.append(timers.now())
    )
    if stop_at is not None:
        timers.at(stop_at, generator.stop)
    generator.start()
    timers.run(until)
    return generator, sender, over


def test_each_is_sent_at_its_time():
    generator, sender, over = load(items(0.0, 0.25, 0.25, 3.0), seconds=0.5)
    assert sender.sent_at == {"r0": 0.0, "r1": 0.25, "r2": 0.25, "r3": 3.0}
    assert [sent.due_at for sent in generator.sent] == [0.0, 0.25, 0.25, 3.0]
    assert over == [3.5]


def test_a_request_without_a_place_is_late_and_keeps_the_time_at_which_it_was_due():
    generator, sender, over = load(items(0.0, 0.1, 0.2), max_concurrency=1)
    assert list(sender.sent_at.values()) == [0.0, 1.0, 2.0]
    assert [sent.due_at for sent in generator.sent] == [0.0, 0.1, 0.2]
    assert over == [3.0]


def test_as_fast_as_possible_a_request_is_due_when_it_has_a_place():
    generator, sender, _ = load(
        items(0.0, 0.0, 0.0, 0.0), max_concurrency=2, is_as_fast_as_possible=True
    )
    assert [sent.due_at for sent in generator.sent] == [0.0, 0.0, 1.0, 1.0]
    assert sender.most_open == 2


def test_a_conversation_goes_on_after_each_end():
    _, sender, over = load(Conversation(), seconds=2.0)
    assert sender.sent_at == {"0": 0.5, "1": 3.5, "2": 6.5}
    assert over == [8.5]


def test_no_more_requests_than_asked_for():
    generator, _, over = load(items(0.0, 1.0, 2.0), num_requests=2)
    assert len(generator.sent) == 2
    assert len(over) == 1


def test_nothing_is_sent_after_the_duration_and_what_had_no_place_is_counted():
    times = [0.0, 0.1, 0.2, 1.5, 5.0]  # at 1.5 nothing would have been sent anyway
    generator, sender, over = load(items(*times), seconds=2.0, max_concurrency=1, duration_s=1.0)
    assert list(sender.sent_at) == ["r0"]
    assert generator.num_unsent == 2
    assert over == [2.0]


def test_a_stop_waits_for_what_is_open_and_sends_nothing_more():
    generator, sender, over = load(items(0.0, 1.0, 2.0), seconds=1.5, stop_at=1.1)
    assert list(sender.sent_at) == ["r0", "r1"]
    assert over == [2.5]
    assert generator.num_unsent == 0


def test_an_interrupted_conversation_is_not_continued():
    _, sender, over = load(Conversation(), seconds=2.0, stop_at=1.0)
    assert list(sender.sent_at) == ["0"]
    assert over == [2.5]


def test_an_empty_workload_is_over_at_once():
    _, _, over = load(ListWorkload([]))
    assert over == [0.0]


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.floats(0, 5), max_size=20).map(sorted),
    places=st.none() | st.integers(1, 4),
    seconds=st.floats(0, 3),
)
def test_every_request_is_sent_once_in_order_and_never_early(times, places, seconds):
    generator, sender, over = load(items(*times), seconds=seconds, max_concurrency=places)
    assert [sent.item.request_id for sent in generator.sent] == [f"r{i}" for i in range(len(times))]
    sent_at = list(sender.sent_at.values())
    assert all(sent >= due for sent, due in zip(sent_at, times, strict=True))
    assert sender.most_open <= (places or len(times))
    assert len(over) == 1
    if places is None:
        assert sent_at == pytest.approx(times)
