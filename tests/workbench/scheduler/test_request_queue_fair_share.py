"""The virtual token counter: who is served, what a return is worth, the paper's fairness bound."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.request import Request
from workbench.scheduler.queues.fair_share import FairShareQueue


def make_request(index: int, client: str, prompt: int = 10) -> Request:
    request = Request(f"r{index}", prompt, 10, float(index), client_id=client)
    request.arrival_index = index
    return request


class NaiveFairShare:
    """The paper's rules over plain lists."""

    def __init__(self) -> None:
        self.counters: dict[str, float] = defaultdict(float)
        self.waiting: dict[str, list[Request]] = {}  # in order of the clients' first request
        self.last_to_leave: str | None = None

    def add(self, request: Request) -> None:
        client = request.client_id
        active = [c for c, requests in self.waiting.items() if requests]
        if client not in active:
            if active:
                floor = min(self.counters[c] for c in active)
            else:
                floor = self.counters[self.last_to_leave] if self.last_to_leave else 0.0
            self.counters[client] = max(self.counters[client], floor)
        self.waiting.setdefault(client, []).append(request)

    def order(self) -> list[Request]:
        clients = sorted(self.waiting, key=lambda c: self.counters[c])
        return [request for client in clients for request in self.waiting[client]]

    def remove(self, request: Request) -> None:
        self.waiting[request.client_id].remove(request)
        if not self.waiting[request.client_id]:
            self.last_to_leave = request.client_id


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "pop", "return", "remove", "serve"]),
        st.integers(0, 99),
        st.sampled_from("abcd"),
    ),
    max_size=80,
)


@given(steps=steps)
@settings(max_examples=150, deadline=None)
def test_equals_the_rules_of_the_paper(steps: list[tuple[str, int, str]]) -> None:
    queue, naive = FairShareQueue(), NaiveFairShare()
    running: list[Request] = []
    for index, (step, pick, client) in enumerate(steps):
        waiting = naive.order()
        if step == "add":
            request = make_request(index, client)
            queue.add(request, float(index))
            naive.add(request)
        elif step == "pop" and waiting:
            running.append(queue.pop())
            assert running[-1] is waiting[0]
            naive.remove(waiting[0])
        elif step == "return" and running:
            request = running.pop(pick % len(running))
            queue.prepend(request)
            naive.waiting[request.client_id].insert(0, request)
        elif step == "remove" and waiting:
            queue.remove(waiting[pick % len(waiting)])
            naive.remove(waiting[pick % len(waiting)])
        elif step == "serve" and running:
            request = running[pick % len(running)]
            queue.on_tokens(request, pick, 1)
            naive.counters[request.client_id] += pick + 2
        assert list(queue) == naive.order()
        assert len(queue) == len(naive.order())
        assert len(queue._heap) <= 4
        for waiting_request in naive.order()[:1]:
            assert queue.peek() is waiting_request


@given(
    prompts=st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), min_size=50, max_size=80),
    weight=st.sampled_from([1.0, 3.0]),
)
@settings(max_examples=40, deadline=None)
def test_backlogged_clients_are_served_in_proportion(
    prompts: list[tuple[int, int]], weight: float
) -> None:
    queue = FairShareQueue(client_weights={"a": weight})
    for index, (prompt_a, prompt_b) in enumerate(prompts):
        queue.add(make_request(2 * index, "a", prompt_a), 0.0)
        queue.add(make_request(2 * index + 1, "b", prompt_b), 0.0)
    for _ in range(len(prompts)):
        if {request.client_id for request in queue} != {"a", "b"}:
            break
        request = queue.pop()
        queue.on_tokens(request, request.num_prompt_tokens, 0)
        assert abs(queue.counter("a") - queue.counter("b")) <= 100


def test_a_client_saves_up_no_credit_while_away() -> None:
    queue = FairShareQueue()
    for index in range(4):
        queue.add(make_request(index, "busy"), 0.0)
        queue.on_tokens(make_request(index, "busy"), 100, 0)
    queue.add(make_request(9, "returning"), 0.0)
    assert queue.counter("returning") == queue.counter("busy") == 400
    assert queue.pop().client_id == "busy"


def test_output_tokens_count_double_and_unknown_clients_zero() -> None:
    queue = FairShareQueue()
    request = make_request(0, "a")
    queue.add(request, 0.0)
    queue.on_tokens(request, 10, 5)
    assert queue.counter("a") == 20
    assert queue.counter("nobody") == 0
    assert queue.key(request) == (20, 0.0, 0)
