"""Preemption by swapping: victims go on where they were, and what happens when the host is full."""

import pytest

from tests.workbench.scheduler.small_schedulers import add, make_scheduler, run, step
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.request import Request


@pytest.mark.parametrize("is_async", [False, True])
def test_a_swapped_request_goes_on_where_it_was(is_async: bool) -> None:
    scheduler = make_scheduler(
        num_blocks=6,
        preemption_mode="swap",
        num_host_blocks=6,
        async_scheduling=is_async,
        cache={"enable_prefix_caching": False},
    )
    requests = [Request(name, 7, 12) for name in "abc"]
    add(scheduler, *requests)
    outputs: list[SchedulerOutput] = []
    in_flight: list[SchedulerOutput] = []
    while scheduler.has_requests or in_flight:
        if scheduler.has_requests:
            outputs.append(scheduler.schedule(0.0))
            in_flight.append(outputs[-1])
            if is_async and len(in_flight) < 2:
                continue
        scheduler.update_from_output(in_flight.pop(0), ModelRunnerOutput(), 0.0)
        scheduler.check_integrity()
        assert len(outputs) < 200
    assert [r.num_output_tokens for r in requests] == [12, 12, 12]
    out = [copy for o in outputs for copy in o.swap_out]
    back = [copy for o in outputs for copy in o.swap_in]
    assert [c.request_id for c in out] == [name for o in outputs for name in o.preempted_req_ids]
    assert len(out) == len(back) >= 1
    # What was thrown out last may come back first, but each request finds its own.
    for copies in (out, back):
        copies.sort(key=lambda copy: copy.request_id)
    for gone, come in zip(out, back, strict=True):
        assert gone.request_id == come.request_id
        assert gone.host_blocks == come.host_blocks
        assert len(come.device_blocks) == len(come.host_blocks)
    for o in outputs:
        copied = sum(len(c.device_blocks) for c in (*o.swap_out, *o.swap_in))
        assert o.shape.num_swap_blocks == copied
    # Nothing is computed twice.
    assert sum(o.total_num_scheduled_tokens for o in outputs) == 3 * 18


@pytest.mark.parametrize("num_host_blocks", [0, 1])
def test_a_full_host_falls_back_to_recomputation(num_host_blocks: int) -> None:
    scheduler = make_scheduler(
        num_blocks=6,
        preemption_mode="swap",
        num_host_blocks=num_host_blocks,
        cache={"enable_prefix_caching": False},
    )
    requests = [Request(name, 7, 12) for name in "abc"]
    add(scheduler, *requests)
    outputs = run(scheduler)
    assert [r.num_output_tokens for r in requests] == [12, 12, 12]
    assert not any(o.swap_out or o.swap_in or o.shape.num_swap_blocks for o in outputs)
    assert sum(o.total_num_scheduled_tokens for o in outputs) > 3 * 18


def test_an_abort_of_a_swapped_request_frees_its_host_blocks() -> None:
    scheduler = make_scheduler(num_blocks=6, preemption_mode="swap", num_host_blocks=6)
    requests = [Request(name, 7, 12) for name in "abc"]
    add(scheduler, *requests)
    while not requests[2].num_preemptions:
        step(scheduler)
    host = scheduler._state.host_cache
    assert host is not None
    assert host.num_free_blocks < 6
    assert scheduler.abort_requests(["c"]) == [requests[2]]
    assert host.num_free_blocks == 6
    run(scheduler)
