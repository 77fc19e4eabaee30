"""Whether two simulations gave the same: records, steps and counters."""

from typing import Any

from workbench.metrics import RunResult, StepLog


def rows(steps: StepLog) -> list[tuple[Any, ...]]:
    """The steps of each replica in their order."""
    columns = [column.tolist() for _, column in steps.columns()]
    return sorted(zip(*columns, strict=True), key=lambda row: row[0])


def assert_same(a: RunResult, b: RunResult) -> None:
    assert a.records == b.records
    assert rows(a.steps) == rows(b.steps)
    assert a.duration_s == b.duration_s
    assert a.counters == b.counters
    assert a.ignored == b.ignored
