"""Victim policies: what each prefers; all are repeatable, with ties to the last admitted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.request import Request
from workbench.scheduler.preemption import (
    LastAdmitted,
    LeastProgress,
    LowestPriority,
    MostBlocks,
    VictimPolicy,
)

POLICIES = (LastAdmitted, LowestPriority, LeastProgress, MostBlocks)


class Computed(Request):
    """A request whose computed tokens are set by hand."""

    num_computed_tokens = 0


def make_running(rows: list[tuple[int, int, int]]) -> list[Request]:
    """One request a row of (priority, computed tokens, blocks), in order of admission."""
    running: list[Request] = []
    for index, (priority, computed, blocks) in enumerate(rows):
        request = Computed(f"r{index}", 8, 8, float(index), priority=priority)
        request.arrival_index = index
        request.num_computed_tokens = computed
        request.block_ids = [list(range(1, blocks + 1)), [0] * 5]  # a group out of its window
        running.append(request)
    return running


@pytest.mark.parametrize(
    ("policy", "expected"),
    [(LastAdmitted, "r3"), (LowestPriority, "r1"), (LeastProgress, "r2"), (MostBlocks, "r1")],
)
def test_each_policy_takes_its_own_victim(policy: type[VictimPolicy], expected: str) -> None:
    running = make_running([(0, 90, 9), (5, 70, 7), (0, 10, 1), (0, 50, 5)])
    assert policy().select(running, running[0]).request_id == expected


@pytest.mark.parametrize("policy", POLICIES)
def test_ties_go_to_the_last_admitted(policy: type[VictimPolicy]) -> None:
    running = make_running([(1, 5, 3)] * 4)
    assert policy().select(running, running[0]) is running[-1]


def test_of_one_priority_the_latest_arrival_gives_way() -> None:
    running = make_running([(1, 5, 3)] * 3)
    running.reverse()
    assert LowestPriority().select(running, running[0]).request_id == "r2"


@pytest.mark.parametrize("policy", POLICIES)
@given(rows=st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_the_victim_is_running_and_the_choice_repeatable(
    policy: type[VictimPolicy], rows: list[tuple[int, int, int]]
) -> None:
    running = make_running(rows)
    before = list(running)
    victim = policy().select(running, running[0])
    assert victim in running
    assert policy().select(running, running[0]) is victim
    assert running == before
