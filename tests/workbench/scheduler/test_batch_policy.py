"""What is characteristic of each way to form a batch."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workbench.scheduler.small_schedulers import make_scheduler as make_small_scheduler
from tests.workbench.scheduler.small_schedulers import step
from workbench.outputs import ModelRunnerOutput
from workbench.request import Request
from workbench.scheduler.batch_policy import (
    BatchBuilder,
    BatchPolicy,
    PrefillFirstBatching,
    SarathiBatching,
    StaticBatching,
    UnifiedBatching,
)
from workbench.scheduler.preemption import LastAdmitted, LeastProgress, VictimPolicy
from workbench.scheduler.scheduler import Scheduler


def make_scheduler(policy: BatchPolicy, num_blocks: int = 400, **settings: Any) -> Scheduler:
    limits: dict[str, Any] = {"max_model_len": 128, "max_num_batched_tokens": 128}
    cache = {"enable_prefix_caching": False}
    return make_small_scheduler(num_blocks, cache, batch_policy=policy, **limits | settings)


def add(scheduler: Scheduler, *lengths: tuple[str, int, int]) -> None:
    for name, num_prompt, num_output in lengths:
        scheduler.add_request(Request(name, num_prompt, num_output), 0.0)


def tokens(scheduler: Scheduler) -> dict[str, int]:
    return step(scheduler).num_scheduled_tokens


def test_unified_mixes_decodes_and_prompts() -> None:
    scheduler = make_scheduler(UnifiedBatching(), max_num_batched_tokens=20)
    add(scheduler, ("a", 6, 9))
    assert tokens(scheduler) == {"a": 6}
    add(scheduler, ("b", 30, 9))
    assert tokens(scheduler) == {"a": 1, "b": 19}
    assert tokens(scheduler) == {"a": 1, "b": 11}
    assert tokens(scheduler) == {"a": 1, "b": 1}


def test_prefill_first_stalls_the_decodes_while_whole_prompts_are_computed() -> None:
    scheduler = make_scheduler(PrefillFirstBatching())
    add(scheduler, ("a", 6, 9))
    assert tokens(scheduler) == {"a": 6}
    assert tokens(scheduler) == {"a": 1}
    add(scheduler, ("b", 100, 9), ("c", 100, 9))
    assert tokens(scheduler) == {"b": 100}  # c would have to be cut
    assert tokens(scheduler) == {"c": 100}
    assert tokens(scheduler) == {"a": 1, "b": 1, "c": 1}


def test_prefill_first_decodes_when_no_prompt_fits() -> None:
    scheduler = make_scheduler(PrefillFirstBatching(), max_num_seqs=1)
    add(scheduler, ("a", 6, 3), ("b", 6, 3))
    assert [tokens(scheduler) for _ in range(4)] == [{"a": 6}, {"a": 1}, {"a": 1}, {"b": 6}]


def test_sarathi_fills_a_fixed_chunk_around_the_decodes() -> None:
    scheduler = make_scheduler(SarathiBatching(chunk_size=16))
    add(scheduler, ("a", 6, 30), ("b", 60, 9), ("c", 5, 9))
    assert tokens(scheduler) == {"a": 6, "b": 10}
    for _ in range(3):
        assert tokens(scheduler) == {"a": 1, "b": 15}
    assert tokens(scheduler) == {"a": 1, "b": 5, "c": 5}
    assert tokens(scheduler) == {"a": 1, "b": 1, "c": 1}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    chunk_size=st.integers(1, 40),
    lengths=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 20)), min_size=1, max_size=12),
    budget=st.integers(8, 60),
)
def test_sarathi_never_exceeds_its_chunk_and_never_stalls_a_decode(
    chunk_size: int, lengths: list[tuple[int, int]], budget: int
) -> None:
    scheduler = make_scheduler(SarathiBatching(chunk_size), max_num_batched_tokens=budget)
    for i, (num_prompt, num_output) in enumerate(lengths):
        scheduler.add_request(Request(str(i), num_prompt, num_output), 0.0)
        step_is_stall_free(scheduler, chunk_size, budget)
    while scheduler.has_requests:
        step_is_stall_free(scheduler, chunk_size, budget)


def step_is_stall_free(scheduler: Scheduler, chunk_size: int, budget: int) -> None:
    decoding = [r.request_id for r in scheduler.running if not r.is_prefill_chunk]
    scheduled = step(scheduler).num_scheduled_tokens
    # Decodes are never held back, so they alone may be more than a chunk (Sarathi-Serve, 4.2).
    assert sum(scheduled.values()) <= max(chunk_size, len(decoding))
    assert sum(scheduled.values()) <= budget
    if len(decoding) <= budget:
        assert all(scheduled[name] == 1 for name in decoding)


def test_a_static_batch_is_computed_together_and_nobody_joins_it() -> None:
    scheduler = make_scheduler(StaticBatching(), max_num_seqs=2, max_num_batched_tokens=20)
    add(scheduler, ("a", 30, 3), ("b", 5, 6), ("c", 4, 2))
    assert tokens(scheduler) == {"a": 20}
    assert tokens(scheduler) == {"a": 10, "b": 5}
    # Both prompts are there: from now on they decode, and an empty place stays empty.
    assert tokens(scheduler) == {"a": 1, "b": 1}
    assert tokens(scheduler) == {"a": 1, "b": 1}
    assert [tokens(scheduler) for _ in range(3)] == [{"b": 1}] * 3
    assert tokens(scheduler) == {"c": 4}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 20)), min_size=1, max_size=12),
    max_num_seqs=st.integers(1, 5),
)
def test_static_batching_admits_only_while_nobody_decodes(
    lengths: list[tuple[int, int]], max_num_seqs: int
) -> None:
    scheduler = make_scheduler(StaticBatching(), max_num_seqs=max_num_seqs)
    for i, (num_prompt, num_output) in enumerate(lengths):
        scheduler.add_request(Request(str(i), num_prompt, num_output), 0.0)
    batch: set[str] = set()
    has_decoded = False
    while scheduler.has_requests:
        is_empty = not scheduler.running
        output = step(scheduler)
        if is_empty:
            batch, has_decoded = set(), False
        joined = {new.request_id for new in output.scheduled_new_reqs}
        assert not joined or not has_decoded
        batch |= joined
        has_decoded |= output.shape.num_decodes > len(joined)
        assert set(output.num_scheduled_tokens) <= batch


class AdmitFirst(BatchPolicy):
    """A policy of a reader's own: newcomers first, then everybody who runs."""

    def form_batch(self, batch: BatchBuilder) -> None:
        batch.admit_waiting()
        batch.continue_running()


class Twice(BatchPolicy):
    """Asks for the same thing twice, and reads what it may read."""

    def form_batch(self, batch: BatchBuilder) -> None:
        for _ in range(2):
            batch.continue_running()
            batch.admit_waiting()
        assert batch.num_scheduled_tokens <= 128
        assert batch.num_running + batch.num_waiting >= 0
        assert not batch.has_preempted


@pytest.mark.parametrize("use_cohort", [True, False])
@pytest.mark.parametrize("policy", [AdmitFirst, Twice])
def test_nobody_is_scheduled_twice_in_a_step(policy: type[BatchPolicy], use_cohort: bool) -> None:
    scheduler = make_scheduler(policy(), use_cohort=use_cohort, max_num_batched_tokens=60)
    add(scheduler, ("a", 6, 9))
    assert tokens(scheduler) == {"a": 6}
    assert tokens(scheduler) == {"a": 1}
    add(scheduler, ("b", 40, 9))
    assert tokens(scheduler) == {"a": 1, "b": 40}
    assert tokens(scheduler) == {"a": 1, "b": 1}


def test_a_policy_may_lower_the_budget_but_not_raise_it() -> None:
    class Bounded(BatchPolicy):
        def __init__(self, limit: int) -> None:
            self.limit = limit

        def form_batch(self, batch: BatchBuilder) -> None:
            batch.token_budget = self.limit
            batch.continue_running()
            batch.admit_waiting()

    for limit, expected in ((10, 10), (1000, 100)):
        scheduler = make_scheduler(Bounded(limit))
        add(scheduler, ("a", 100, 9))
        assert tokens(scheduler) == {"a": expected}


CROWDS = [
    # blocks, budget, (prompt, output) of each request
    (28, 24, [(53, 30), (9, 20), (69, 35), (55, 23), (65, 26), (31, 36)]),
    (24, 24, [(21, 40), (12, 20), (19, 35), (61, 34), (52, 17), (16, 35)]),
    (31, 16, [(25, 30), (57, 44), (40, 34), (31, 34), (69, 15), (68, 37)]),
]


@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("victim_policy", [LastAdmitted, LeastProgress])
@pytest.mark.parametrize("mode", ["recompute", "swap"])
@pytest.mark.parametrize("policy", [lambda: SarathiBatching(512), StaticBatching, AdmitFirst])
def test_a_decode_that_is_thrown_out_after_it_was_scheduled_loses_nothing(
    policy: Callable[[], BatchPolicy],
    mode: str,
    victim_policy: type[VictimPolicy],
    crowd: tuple[int, int, list[tuple[int, int]]],
) -> None:
    # Decodes are scheduled first; then a prompt's next chunk finds no block and throws one out.
    num_blocks, budget, lengths = crowd
    runs = []
    for use_cohort in (True, False):
        scheduler = make_scheduler(
            policy(),
            num_blocks=num_blocks,
            use_cohort=use_cohort,
            victim_policy=victim_policy(),
            preemption_mode=mode,
            num_host_blocks=60,
            max_num_batched_tokens=budget,
            scheduler_reserve_full_isl=False,
        )
        add(scheduler, *((str(i), *length) for i, length in enumerate(lengths)))
        requests = list(scheduler.waiting)
        outputs = []
        while scheduler.has_requests:
            output = scheduler.schedule(0.0)
            if not output.total_num_scheduled_tokens:
                scheduler.end_stuck_request(output)
            scheduler.update_from_output(output, ModelRunnerOutput(), 0.0)
            scheduler.check_integrity()
            outputs.append(output.as_dict())
            assert len(outputs) < 600
        assert [(r.num_output_tokens, r.finish_reason) for r in requests] == [
            (num_output, "length") for _, num_output in lengths
        ]
        runs.append(outputs)
    assert runs[0] == runs[1]
