"""The log of steps: the same rows however they were added, and small."""

import numpy as np
import pytest

from workbench.metrics import StepLog
from workbench.metrics.step_log import COLUMNS, STEPS_A_CHUNK


def row(i: int) -> tuple[int, float, float, int, int, int, int, int, int, int]:
    return (i % 3, 0.5 * i, 0.25, 9, 4, 5, 6, 7, i % 2, 100 + i)


def filled(count: int) -> StepLog:
    log = StepLog()
    for i in range(count):
        log.append(*row(i))
    return log


@pytest.mark.parametrize("count", [0, 1, STEPS_A_CHUNK - 1, STEPS_A_CHUNK, 2 * STEPS_A_CHUNK + 3])
def test_rows_are_kept_over_chunks(count: int) -> None:
    log = filled(count)
    assert len(log) == count
    columns = dict(log.columns())
    assert tuple(columns) == COLUMNS
    expected = list(zip(*map(row, range(count)), strict=True)) or [()] * len(COLUMNS)
    order = ("replica", "start_s", "duration_s", "scheduled_tokens", "prefill_tokens")
    order += ("decode_tokens", "running", "waiting", "preempted", "kv_blocks_used")
    for name, values in zip(order, expected, strict=True):
        assert columns[name].tolist() == list(values), name
        assert columns[name].dtype == (np.float64 if name.endswith("_s") else np.int64)


def test_decodes_added_at_once_are_rows_like_others() -> None:
    at_once, one_by_one = filled(2), filled(2)
    at_once.extend_decodes(1, [5.0, 6.0], [1.0, 1.5], [8, 9], decode_tokens=3, running=3, waiting=2)
    one_by_one.append(1, 5.0, 1.0, 3, 0, 3, 3, 2, 0, 8)
    one_by_one.append(1, 6.0, 1.5, 3, 0, 3, 3, 2, 0, 9)
    assert at_once == one_by_one
    at_once.append(*row(9))
    assert len(at_once) == 5
    assert at_once != one_by_one
    assert at_once.kv_blocks_used.tolist() == [100, 101, 8, 9, 109]


def test_steps_are_sorted_by_start_and_replica_and_equal_ones_keep_their_order() -> None:
    log = StepLog()
    for replica, start, blocks in ((1, 2.0, 0), (0, 2.0, 1), (0, 1.0, 2), (0, 2.0, 3)):
        log.append(replica, start, 0.0, 1, 1, 0, 1, 0, 0, blocks)
    log.sort()
    assert log.kv_blocks_used.tolist() == [2, 1, 3, 0]
    log.append(*row(8))
    assert log.start_s.tolist() == [1.0, 2.0, 2.0, 2.0, 4.0]


def test_columns_make_the_log_again() -> None:
    log = filled(5)
    assert StepLog.from_columns(dict(log.columns())) == log


def test_a_step_takes_the_memory_of_its_numbers() -> None:
    log = filled(STEPS_A_CHUNK)
    assert sum(column.nbytes for _, column in log.columns()) == 8 * len(COLUMNS) * STEPS_A_CHUNK


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match="StepLog has no 'tokens'; its columns are replica"):
        _ = StepLog().tokens


def test_preemptions_without_a_step_go_to_the_next_one_of_the_replica_or_to_its_last() -> None:
    log = StepLog()
    for replica in (0, 1, 0):
        log.append(replica, len(log), 0.5, 1, 1, 0, 1, 0, 2, 3)
        log.note_preemptions(1, 3)
    log.note_preemptions(0, 0)
    assert log.preempted.tolist() == [2, 11, 2]  # 3 came before it, 6 had no step to come
    log.note_preemptions(0, 5)
    log.append(1, 9.0, 0.5, 1, 1, 0, 1, 0, 0, 3)
    assert log.preempted.tolist() == [2, 11, 7, 0]
    assert len(log) == 4
