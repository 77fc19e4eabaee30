"""What a viewer is told is what the scheduler did, however often it is told."""

import itertools

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine.step_detail import EVERY_STEP, StepWatcher, WatchLimits
from engine.step_messages import StepDetail
from tests.engine.step_viewer import Viewer
from tests.workbench.random_world import World, WorldRun, run, worlds
from workbench.outputs import SchedulerOutput
from workbench.scheduler.scheduler import Scheduler

SETTINGS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)


def over_the_wire(detail: StepDetail) -> StepDetail:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(detail), type=StepDetail)


def compare(viewer: Viewer, scheduler: Scheduler, made: SchedulerOutput) -> None:
    """Hold a viewer who has just been told a step against the scheduler itself."""
    assert {name: row[0] for name, row in viewer.rows.items()} == made.num_scheduled_tokens
    assert viewer.running == {r.request_id for r in scheduler.running}
    tables = {
        (r.request_id, group): list(table)
        for r in scheduler.running
        for group, table in enumerate(r.block_ids)
        if table
    }
    assert viewer.tables == tables


def compare_surveyed(viewer: Viewer, scheduler: Scheduler) -> None:
    assert viewer.waiting == [r.request_id for r in scheduler.waiting]
    assert bytes(viewer.states) == scheduler.kv_cache_manager.block_states()


def compare_counts(viewer: Viewer, made: SchedulerOutput) -> None:
    """Where no step is in flight, prompts and computed tokens must be right as well."""
    if not made.scheduled_spec_decode_tokens:
        assert sum(row[1] for row in viewer.rows.values()) == made.num_prefill_tokens
    for request in made.rows.requests:
        if not request.is_finished:
            assert viewer.rows[request.request_id][2] == request.num_computed_tokens


@SETTINGS
@given(worlds())
def test_who_is_told_every_step_knows_all(world: World) -> None:
    viewer, watcher = Viewer(), StepWatcher(EVERY_STEP)
    watcher.watch(True)

    def look(scheduler: Scheduler, made: SchedulerOutput | None) -> None:
        if made is None:
            return
        detail = watcher.detail(scheduler, made)
        assert detail is not None
        viewer.see(over_the_wire(detail))
        compare(viewer, scheduler, made)
        compare_surveyed(viewer, scheduler)
        if world.depth == 1:
            compare_counts(viewer, made)

    run(world, look)
    ended = [name for name, reason in viewer.events if reason != "preempted"]
    assert len(ended) == len(set(ended))


@SETTINGS
@given(worlds(), st.lists(st.sampled_from([0.0, 0.3, 1.0, 4.0]), min_size=1, max_size=30))
def test_who_is_told_some_steps_knows_those(world: World, waits: list[float]) -> None:
    now = [0.0]
    viewer, watcher = Viewer(), StepWatcher(WatchLimits(1.0, 0.4, 0.04), lambda: now[0])
    watcher.watch(True)
    pace = iter(waits * 1000)

    def look(scheduler: Scheduler, made: SchedulerOutput | None) -> None:
        now[0] += next(pace)
        if made is None or (detail := watcher.detail(scheduler, made)) is None:
            return
        viewer.see(over_the_wire(detail))
        compare(viewer, scheduler, made)
        if detail.waiting is not None:
            compare_surveyed(viewer, scheduler)

    run(world, look)


def small_world() -> World:
    """Six requests that share a prefix, in a cache that holds not all of them."""
    request = {"arrival_step": 0, "prompt": 12, "output": 20, "priority": 0, "client": "a",
               "deadline": None, "group": 0, "shared": 2}  # fmt: skip
    limits = {"max_num_seqs": 8, "max_num_batched_tokens": 64, "max_model_len": 40,
              "num_speculative_tokens": 0}  # fmt: skip
    return World(
        scheduler=limits, cache={"block_size": 4, "enable_prefix_caching": True}, num_blocks=24,
        depth=1, queue="fcfs", victim="last", batch_policy="unified", eviction="lru",
        requests=(request,) * 6, aborts=(), acceptance_rate=0.0,
    )  # fmt: skip


def steps_of(world_run: WorldRun) -> list[SchedulerOutput]:
    world_run.change(0)
    steps = []
    for _ in range(5):
        made = world_run.step()
        assert made is not None
        steps.append(made)
    return steps


def test_nothing_is_told_while_nobody_watches() -> None:
    world_run, watcher = WorldRun(small_world()), StepWatcher(EVERY_STEP)
    made = steps_of(world_run)[-1]
    assert watcher.detail(world_run.scheduler, made) is None
    watcher.watch(True)
    assert watcher.detail(world_run.scheduler, made) is not None
    watcher.watch(False)
    assert watcher.detail(world_run.scheduler, made) is None


def test_watching_anew_tells_everything_anew() -> None:
    world_run, watcher = WorldRun(small_world()), StepWatcher(EVERY_STEP)
    made = steps_of(world_run)[-1]
    watcher.watch(True)
    first = watcher.detail(world_run.scheduler, made)
    watcher.watch(True)
    again = watcher.detail(world_run.scheduler, made)
    assert first == again
    assert again is not None
    assert again.is_first
    viewer = Viewer()
    viewer.see(again)
    compare(viewer, world_run.scheduler, made)


def test_preemptions_and_sharing_can_be_seen() -> None:
    viewer, watcher = Viewer(), StepWatcher(EVERY_STEP)
    watcher.watch(True)
    most_users = 0

    def look(scheduler: Scheduler, made: SchedulerOutput | None) -> None:
        nonlocal most_users
        if made is not None and (detail := watcher.detail(scheduler, made)):
            viewer.see(detail)
            most_users = max(most_users, max(viewer.states) - 1)

    run(small_world(), look)
    assert "preempted" in {reason for _, reason in viewer.events}
    assert [r for _, r in viewer.events].count("length") == 6
    assert most_users > 2
    assert set(viewer.states) <= {0, 1}


@pytest.mark.parametrize(("cost", "least_wait"), [(0.0, 1 / 120), (0.01, 0.01 / 0.04)])
def test_telling_is_rare_and_cheap(cost: float, least_wait: float) -> None:
    """On a processor that takes `cost` seconds for the rows of a step, and none for its map."""
    world_run, now = WorldRun(small_world()), 0.0
    costs = itertools.cycle([0.0, cost, cost])
    watcher = StepWatcher(WatchLimits(), lambda: now, lambda: next(costs))
    watcher.watch(True)
    made = steps_of(world_run)[-1]
    told_at = []
    for _ in range(400):
        now += 0.005
        if (detail := watcher.detail(world_run.scheduler, made)) is not None:
            told_at.append(now)
            if detail.waiting is None:
                next(costs)
    gaps = [b - a for a, b in itertools.pairwise(told_at)]
    assert sum(gaps) / len(gaps) >= least_wait * 0.99
