"""The grid of steps that calibrates a simulator, and the steps of a run that serves."""

from dataclasses import replace
from typing import Any

import pytest

from engine.benchmarks.served_steps import serve
from engine.benchmarks.step_table import (
    Limits,
    Point,
    grid,
    measure_grid,
    sizes,
    synthetic_steps,
)
from engine.benchmarks.synthetic import Row
from engine.build import EngineParts
from engine.errors import InputError
from tests.engine.harness import make_engine
from tests.engine.test_serving_run import MODEL, burst
from workbench.errors import ConfigError
from workbench.workload.base import ListWorkload, WorkloadRequest

LIMITS = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "max_model_len": 256}


def engine(**fields: Any) -> EngineParts:
    settings: dict[str, Any] = {**LIMITS, "num_gpu_blocks_override": 60, **fields}
    return make_engine(MODEL, load_format="dummy", dtype="float32", **settings)


@pytest.mark.parametrize("limits", [Limits(64, 4, 200), Limits(8192, 256, 9000), Limits(16, 1, 90)])
def test_a_grid_goes_to_the_limits_and_no_further(limits: Limits) -> None:
    points = grid(limits)
    assert len(points) == len(set(points)) <= 230
    tokens = [p.num_decodes + p.num_chunks * p.query_len for p in points]
    assert max(tokens) == limits.num_tokens or max(tokens) == limits.length
    assert max(p.num_decodes for p in points) == min(limits.num_rows, limits.num_tokens)
    for point in points:
        assert max(point.contexts(), default=0) <= limits.length
        assert point.chunk_context + point.query_len <= limits.length
        assert point.num_decodes + point.num_chunks <= limits.num_rows + 3
        assert point.shared_len <= min(point.contexts(), default=0)
        assert point.shared_len % limits.block_size == 0
    sharing = {(p.num_decodes, p.context) for p in points if p.shared_len}
    assert sharing <= {(p.num_decodes, p.context) for p in points if not p.shared_len}
    assert bool(sharing) == (limits.num_rows > 1)


def test_contexts_are_spread_around_their_mean() -> None:
    assert Point(1, 100).contexts() == [100]
    assert Point(5, 100).contexts() == [20, 60, 100, 140, 180]
    assert Point(5, 100, spread=0.0).contexts() == [100] * 5
    assert sizes(1, 10) == [1, 2, 4, 6, 8, 10]


def test_points_become_measured_steps() -> None:
    parts = engine()
    points = [Point(3, 20), Point(0, 0, 24, 16, 2), Point(2, 30, 16, 0, 1, spread=0.0)]
    steps = list(measure_grid(parts, points, repeats=1))
    assert [s.shape.num_tokens for s in steps] == [3, 48, 18]
    assert steps[1].shape.prefills == [(24, 16), (24, 16)]
    assert steps[0].shape.decode_context == pytest.approx(3 * 24, abs=4)
    assert [s.shape.longest_decode for s in steps] == [36 + 4, 0, 30 + 2]
    assert steps[2].shape.decode_context == 2 * steps[2].shape.longest_decode
    assert all(s.seconds > 0 and not s.host_s for s in steps)
    assert parts.runner.input_batch.slot_of == {}


def test_rows_share_the_blocks_that_a_point_says() -> None:
    parts = engine()
    steps = synthetic_steps(parts)
    output = steps.join([Row(1, 60, shared_len=40), Row(1, 90, shared_len=40), Row(1, 60)])
    tables = [new.block_ids[0] for new in output.scheduled_new_reqs]
    assert tables[0][:2] == tables[1][:2]
    assert len({block for table in tables for block in table}) == sum(map(len, tables)) - 2
    points = [Point(3, 60, spread=0.0, shared_len=n) for n in (32, 0)]
    shared, own = (step.shape for step in measure_grid(parts, points, repeats=1))
    assert shared.shared_context == 2 * 32
    assert own.shared_context == 0
    assert shared.decode_context == own.decode_context


def test_sharing_is_not_timed_where_it_is_not_counted() -> None:
    limits = Limits.of(engine(max_model_len=256))
    assert limits.block_size == 16
    windowed = replace(limits, block_size=0)
    assert any(point.shared_len for point in grid(limits))
    assert not any(point.shared_len for point in grid(windowed))


def test_a_cache_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"holds 32 tokens .* at least 56"):
        Limits.of(engine(num_gpu_blocks_override=2, max_model_len=32))


def test_steps_of_a_run_are_timed_as_the_server_sees_them() -> None:
    parts = engine(max_num_seqs=6)
    result, steps = serve(parts, burst(), "run/0")
    assert len(steps.first) == 1
    assert len(steps.first) + len(steps.busy) == len(result.steps)
    total = sum(step.seconds for step in steps.busy)
    assert total < result.duration_s
    span = result.steps.start_s[-1] + result.steps.duration_s[-1] - result.steps.start_s[0]
    assert total + steps.first[0].seconds == pytest.approx(span, rel=0.05)
    tokens = sum(step.shape.num_tokens for step in (*steps.first, *steps.busy))
    assert tokens == result.steps.scheduled_tokens.sum()
    assert all(0 < step.host_s < step.seconds for step in steps.busy)


def test_the_longest_decode_of_a_step_is_noted() -> None:
    parts = engine()
    requests = [WorkloadRequest("a", 0.0, 20, 12), WorkloadRequest("b", 0.0, 7, 12)]
    _, steps = serve(parts, ListWorkload(requests), "run/0")
    shapes = [step.shape for step in steps.busy]
    both = [shape for shape in shapes if shape.num_decodes == 2]
    assert len(both) == 11
    for shape in both:
        assert 2 * shape.longest_decode - shape.decode_context == 13


def test_shared_blocks_of_a_run_are_noted() -> None:
    parts = engine(enable_prefix_caching=True)
    ids = {"hash_ids": (1, 2), "hash_block_size": 16}
    requests = [WorkloadRequest(name, 0.0, 36, 4, **ids) for name in "ab"]
    _, steps = serve(parts, ListWorkload(requests), "run/0")
    assert [s.shape.shared_context for s in steps.busy if s.shape.num_decodes == 2] == [32] * 3


def test_a_pause_is_nobodys_step_and_the_engine_goes_on() -> None:
    parts = engine()
    requests = [WorkloadRequest("a", 0.0, 20, 3), WorkloadRequest("b", 0.3, 20, 3)]
    for number in range(2):
        _, steps = serve(parts, ListWorkload(requests), f"run/{number}")
        assert len(steps.first) == 2
        assert max(step.seconds for step in steps.busy) < 0.3
        assert {step.source for step in steps.busy} == {f"run/{number}"}
    with pytest.raises(InputError):
        serve(parts, ListWorkload([WorkloadRequest("c", 0, 1, 1, (10**6,))]), "run/2")
