"""Every queue against a naive one that sorts a list, and what sets each policy apart."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ConfigError
from workbench.request import Request
from workbench.scheduler.length_predictor import LengthPredictor
from workbench.scheduler.queues.earliest_deadline import EarliestDeadlineQueue
from workbench.scheduler.queues.fair_share import FairShareQueue
from workbench.scheduler.queues.shortest_job_first import ShortestJobFirstQueue
from workbench.scheduler.request_queue import FCFSQueue, PriorityQueue, RequestQueue

QUEUES: dict[str, Callable[[], RequestQueue]] = {
    "fcfs": FCFSQueue,
    "priority": PriorityQueue,
    "shortest_job_first": lambda: ShortestJobFirstQueue(LengthPredictor(0.5, 1), aging=0.5),
    "earliest_deadline": lambda: EarliestDeadlineQueue(default_slack_s=3.0),
    "fair_share": FairShareQueue,
}


def make_request(index: int, arrival_time: float = 0.0, **fields: Any) -> Request:
    max_tokens = fields.pop("max_tokens", 10)
    request = Request(f"r{index}", fields.pop("prompt", 8), max_tokens, arrival_time, **fields)
    request.arrival_index = index
    return request


class NaiveQueue:
    """A plain list in queue order; keyed requests are sorted in, others stand where they came."""

    def __init__(self, queue: RequestQueue) -> None:
        self.is_keyed = not isinstance(queue, FCFSQueue)
        self.key = queue.key
        self.requests: list[Request] = []

    def add(self, request: Request) -> None:
        self.requests.append(request)
        self._sort()

    def prepend(self, request: Request) -> None:
        self.requests.insert(0, request)
        self._sort()

    def _sort(self) -> None:
        if self.is_keyed:
            self.requests.sort(key=self.key)


requests_fields = st.fixed_dictionaries(
    {
        "prompt": st.integers(1, 50),
        "max_tokens": st.integers(1, 50),
        "priority": st.integers(-1, 2),
        "deadline": st.none() | st.integers(0, 9).map(float),
    }
)
operations = st.lists(
    st.tuples(st.sampled_from(["add", "add", "pop", "return", "remove"]), st.integers(0, 99)),
    max_size=60,
)


@pytest.mark.parametrize("name", [name for name in QUEUES if name != "fair_share"])
@given(data=st.data(), steps=operations)
@settings(max_examples=60, deadline=None)
def test_equals_a_sorted_list(name: str, data: st.DataObject, steps: list[tuple[str, int]]) -> None:
    queue = QUEUES[name]()
    naive = NaiveQueue(queue)
    popped: list[Request] = []
    for now, (step, pick) in enumerate(steps):
        if step == "add":
            request = make_request(now, now // 3, **data.draw(requests_fields))
            queue.add(request, float(now))
            naive.add(request)
        elif step == "return" and popped:
            request = popped.pop(pick % len(popped))
            queue.prepend(request)
            naive.prepend(request)
        elif naive.requests and step == "pop":
            assert queue.peek() is naive.requests[0]
            popped.append(queue.pop())
            assert popped[-1] is naive.requests.pop(0)
            assert popped[-1] not in queue
        elif naive.requests and step == "remove":
            request = naive.requests.pop(pick % len(naive.requests))
            assert request in queue
            queue.remove(request)
        assert list(queue) == naive.requests
        assert len(queue) == len(naive.requests)


@pytest.mark.parametrize("name", QUEUES)
def test_an_empty_queue_and_an_absent_request_raise_lookup_error(name: str) -> None:
    queue = QUEUES[name]()
    for action in (queue.peek, queue.pop, lambda: queue.remove(make_request(0))):
        with pytest.raises(LookupError):
            action()
    queue.add(make_request(1), 0.0)
    with pytest.raises(LookupError):
        queue.remove(make_request(1))
    queue.pop()
    with pytest.raises(LookupError):
        queue.pop()


@pytest.mark.parametrize("name", QUEUES)
def test_many_removals_leave_nothing_behind(name: str) -> None:
    queue = QUEUES[name]()
    requests = [make_request(i, float(i), client_id=f"c{i % 3}") for i in range(500)]
    for request in requests:
        queue.add(request, request.arrival_time)
    survivors = requests[7::100]
    for request in requests:
        if request not in survivors:
            queue.remove(request)
    assert len(queue) == len(survivors)
    assert len(getattr(queue, "_heap", ())) <= 2 * len(survivors) + 64
    assert {queue.pop() for _ in survivors} == set(survivors)


def test_fcfs_puts_each_prepended_request_in_front() -> None:
    queue = FCFSQueue()
    first, second, third = (make_request(i) for i in range(3))
    queue.add(first, 0.0)
    queue.prepend(second)
    queue.prepend(third)
    assert list(queue) == [third, second, first]


def test_priority_breaks_ties_by_arrival_even_after_a_preemption() -> None:
    queue = PriorityQueue()
    requests = [make_request(i) for i in range(3)]
    for request in requests:
        queue.add(request, 0.0)
    preempted = queue.pop()
    queue.prepend(preempted)
    urgent = make_request(3, 9.0, priority=-1)
    queue.add(urgent, 9.0)
    assert list(queue) == [urgent, *requests]


def test_shortest_job_counts_what_is_left() -> None:
    queue = ShortestJobFirstQueue(LengthPredictor(0.0, 0), prompt_weight=0.5)
    request = make_request(0, prompt=8, max_tokens=100)
    assert queue.remaining_work(request) == 100 + 0.5 * 8
    request.predicted_output_tokens = 20
    assert queue.remaining_work(request) == 20 + 0.5 * 8


def test_aging_lets_a_long_job_overtake_later_short_ones() -> None:
    def order(aging: float) -> list[str]:
        queue = ShortestJobFirstQueue(LengthPredictor(0.0, 0), aging=aging)
        queue.add(make_request(0, 0.0, max_tokens=100), 0.0)
        queue.add(make_request(1, 60.0, max_tokens=50), 60.0)
        return [request.request_id for request in queue]

    assert order(aging=0.0) == ["r1", "r0"]
    assert order(aging=1.0) == ["r0", "r1"]


def test_deadlines_come_before_later_default_ones() -> None:
    queue = EarliestDeadlineQueue(default_slack_s=5.0)
    slack, due = make_request(0, 1.0), make_request(1, 2.0, deadline=5.5)
    queue.add(slack, 1.0)
    queue.add(due, 2.0)
    assert list(queue) == [due, slack]


def test_policies_refuse_negative_settings_in_one_line() -> None:
    oracle = LengthPredictor(0.0, 0)
    for build in (
        lambda: LengthPredictor(-0.1, 0),
        lambda: LengthPredictor(float("nan"), 0),
        lambda: ShortestJobFirstQueue(oracle, aging=-1.0),
        lambda: ShortestJobFirstQueue(oracle, prompt_weight=-1.0),
        lambda: EarliestDeadlineQueue(-1.0),
        lambda: FairShareQueue(output_weight=-2.0),
        lambda: FairShareQueue(client_weights={"a": 0.0}),
    ):
        with pytest.raises(ConfigError) as error:
            build()
        assert "\n" not in str(error.value)


def test_the_predictor_is_an_oracle_at_error_zero_and_mean_preserving_above() -> None:
    request = make_request(0, max_tokens=100)
    assert LengthPredictor(0.0, 5).predict(request) == 100
    predictor = LengthPredictor(0.5, 5)
    requests = [make_request(i, max_tokens=1000) for i in range(4000)]
    factors = [predictor.predict(r) / 1000 for r in requests]
    mean = sum(factors) / len(factors)
    deviation = (sum((f - mean) ** 2 for f in factors) / len(factors)) ** 0.5
    assert mean == pytest.approx(1.0, abs=0.03)
    assert deviation == pytest.approx(0.5, abs=0.05)


def test_predictions_depend_on_seed_and_request_only() -> None:
    requests = [make_request(i, max_tokens=100) for i in range(20)]
    forward = [LengthPredictor(0.5, 3).predict(r) for r in requests]
    backward = [LengthPredictor(0.5, 3).predict(r) for r in reversed(requests)]
    assert forward == backward[::-1]
    assert forward != [LengthPredictor(0.5, 4).predict(r) for r in requests]
    assert min(LengthPredictor(3.0, 3).predict(make_request(0, max_tokens=1)), 1.0) == 1.0


def test_a_queue_says_whether_it_counts_service_and_one_that_does_not_say_is_told() -> None:
    class Silent(FCFSQueue):
        def on_tokens(self, request: Request, prompt: int, output: int) -> None: ...

    class Declared(Silent):
        counts_service = False

    class Child(Silent): ...

    class Again(Declared):
        def on_tokens(self, request: Request, prompt: int, output: int) -> None: ...

    class Counter:
        def on_tokens(self, request: Request, prompt: int, output: int) -> None: ...

    class Mixed(Counter, FCFSQueue): ...

    said = [q.counts_service for q in (FCFSQueue, Silent, Declared, Child, Again, Mixed)]
    assert said == [False, True, False, True, True, True]
    assert FairShareQueue.counts_service
