"""What is read from a device's timeline, and steps made up for measuring."""

import pytest

from engine.benchmarks.synthetic import Row, SyntheticSteps
from engine.benchmarks.timing import Timeline, decode_timeline, time_decode, time_shape, timeline
from tests.engine.harness import make_engine
from tests.engine.test_serving_run import MODEL


def test_the_longest_pauses_are_those_between_steps() -> None:
    step = [(0.0, 10.0), (11.0, 20.0), (20.0, 30.0)]
    spans = [(start + 50.0 * i, end + 50.0 * i) for i in range(3) for start, end in step]
    seen = timeline(spans, 3)
    assert seen is not None
    assert seen.replay_over_kernels == pytest.approx(30 / 29)
    assert seen.host_gap_us == pytest.approx(20.0)


def test_what_runs_at_once_is_busy_once() -> None:
    assert timeline([(0.0, 10.0), (2.0, 5.0), (15.0, 20.0)], 2) == Timeline(1.0, 5.0)
    assert timeline([(0.0, 1.0)], 2) is None


def test_steps_share_blocks_where_there_are_too_few() -> None:
    steps = SyntheticSteps(num_blocks=6, block_size=4, room=4)
    output = steps.join([Row(1, 11), Row(1, 11)])
    tables = [new.block_ids[0] for new in output.scheduled_new_reqs]
    assert tables == [(1, 2, 3, 4), (5, 6, 1, 2)]
    assert output.total_num_scheduled_tokens == 2
    assert steps.repeat().num_scheduled_tokens == dict.fromkeys(output.num_scheduled_tokens, 1)
    assert steps.leave().finished_req_ids == list(output.num_scheduled_tokens)


def test_any_shape_is_timed_and_leaves_the_batch_empty() -> None:
    engine = make_engine(
        MODEL, load_format="dummy", dtype="float32", max_num_seqs=4, max_model_len=128,
        num_gpu_blocks_override=32,
    )  # fmt: skip
    steps = SyntheticSteps(32, engine.cache_config.block_size, room=12)
    decode = time_decode(engine.runner, steps, [Row(1, 20)] * 3, num_steps=2)
    chunk = Row(30, 16, samples=False)
    shape = time_shape(engine.runner, steps, [Row(1, 20)], [chunk], repeats=2)
    for took in (decode, shape):
        assert 0.0 < took.host_s <= took.alone_s
        assert took.pipelined_s > 0.0
    if engine.device.type == "cpu":
        assert decode_timeline(engine.runner, steps, [Row(1, 20)] * 3) is None
    assert engine.runner.input_batch.slot_of == {}
