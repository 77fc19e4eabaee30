"""Invariants of scheduler and KV cache over random worlds, with all policies."""

from hypothesis import HealthCheck, Phase, given, settings

from tests.workbench.random_world import Run, World, run, worlds
from workbench.outputs import SchedulerOutput
from workbench.scheduler.scheduler import Scheduler

SETTINGS = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    # A world shrinks for minutes; the one that was found says enough.
    phases=[Phase.explicit, Phase.generate],
)


@SETTINGS
@given(worlds())
def test_integrity_limits_and_budget_hold_after_every_step(world: World) -> None:
    def look(scheduler: Scheduler, output: SchedulerOutput | None) -> None:
        scheduler.check_integrity()
        config = world.scheduler
        active = config["max_num_active_seqs"] or config["max_num_seqs"]
        assert len(scheduler.running) <= active
        for request in scheduler.running:
            assert request.num_computed_tokens <= world.scheduler["max_model_len"]
            held = len(request.block_ids[0]) * world.cache["block_size"]
            assert held >= request.num_computed_tokens
        if output is not None:
            tokens = output.num_scheduled_tokens
            assert all(n > 0 for n in tokens.values())
            assert sum(tokens.values()) == output.total_num_scheduled_tokens
            assert output.shape.num_tokens == output.total_num_scheduled_tokens
            assert output.shape.num_requests == len(tokens)
            assert output.total_num_scheduled_tokens <= config["max_num_batched_tokens"]
            assert 0 <= output.num_prefill_tokens <= output.total_num_scheduled_tokens

    run(world, look=look)


@SETTINGS
@given(worlds())
def test_every_request_ends_exactly_once_with_all_its_tokens(world: World) -> None:
    result = run(world)
    assert sorted(int(r[0]) for r in result.finished) == list(range(len(world.requests)))
    max_model_len = world.scheduler["max_model_len"]
    for request_id, reason, num_tokens, times in result.finished:
        item = world.requests[int(request_id)]
        full = min(item["output"], max_model_len - item["prompt"])
        assert num_tokens == len(times)
        assert list(times) == sorted(times)
        if reason == "length":
            assert num_tokens == full
        elif reason == "ignored":
            assert num_tokens == 0
        else:
            assert reason in ("abort", "error")
            assert num_tokens <= full


def assert_same_decisions(a: Run, b: Run) -> None:
    """Step by step, so that the first difference is the one that is told."""
    for one, other in zip(a.outputs, b.outputs, strict=False):
        assert one == other
    assert a.finished == b.finished
    assert len(a.outputs) == len(b.outputs)


@SETTINGS
@given(worlds())
def test_the_decode_cohort_changes_no_decision(world: World) -> None:
    assert_same_decisions(*(run(world, use_cohort=use) for use in (True, False)))


@SETTINGS
@given(worlds())
def test_moving_blocks_in_runs_changes_no_decision(world: World) -> None:
    assert_same_decisions(*(run(world, use_runs=use) for use in (True, False)))


@SETTINGS
@given(worlds())
def test_forgetting_uncomputed_blocks_leaves_none_that_a_hit_could_find(world: World) -> None:
    def look(scheduler: Scheduler, output: SchedulerOutput | None) -> None:
        scheduler.check_integrity()
        for request in scheduler.running:
            full = request.num_computed_tokens // world.cache["block_size"]
            assert all(count <= full for count in request.num_cached_blocks)

    results = [run(world, look, forget_uncomputed_blocks=True, use_runs=r) for r in (True, False)]
    assert results[0].outputs == results[1].outputs


@settings(SETTINGS, max_examples=20)
@given(worlds())
def test_same_world_same_run(world: World) -> None:
    assert run(world) == run(world)
