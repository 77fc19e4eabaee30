"""Clients take turns, each one's requests in their order."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.router.fair_queue import FairQueue


def test_a_client_with_one_request_does_not_wait_behind_a_hundred() -> None:
    queue: FairQueue[str] = FairQueue()
    for i in range(100):
        queue.push("loud", f"loud-{i}")
    queue.push("quiet", "quiet-0")
    assert list(queue)[:3] == ["loud-0", "quiet-0", "loud-1"]
    queue.remove("loud", "loud-0", served=True)
    assert next(iter(queue)) == "quiet-0"


def test_a_request_that_was_tried_goes_to_the_front_of_its_line_only() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a", "a1")
    queue.push("b", "b1")
    queue.push("b", "b0", front=True)
    assert list(queue) == ["a1", "b0", "b1"]
    with pytest.raises(ValueError, match="waits already"):
        queue.push("b", "b1")


@given(pushes=st.lists(st.sampled_from("abc"), min_size=1, max_size=60), serve=st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_turns_are_even_and_order_is_kept(pushes: list[str], serve: int) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number, client in enumerate(pushes):
        queue.push(client, (client, number))
    served: dict[str, list[int]] = defaultdict(list)
    left = Counter(pushes)
    for _ in range(min(serve, len(pushes))):
        client, number = next(iter(queue))
        assert queue.remove(client, (client, number), served=True)
        served[client].append(number)
        left[client] -= 1
        busy = [len(served[c]) for c in set(pushes) if left[c]]
        # nobody who waits has had two turns fewer than anybody else
        assert max(map(len, served.values())) - min(busy, default=10**9) <= 1
    assert all(numbers == sorted(numbers) for numbers in served.values())
    assert len(queue) == len(pushes) - sum(map(len, served.values())) == len(list(queue))


def test_what_is_not_there_cannot_be_removed() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a", "x")
    assert not queue.remove("b", "x")
    assert not queue.remove("a", "y")
    assert queue.remove("a", "x")
    assert (len(queue), list(queue)) == (0, [])
