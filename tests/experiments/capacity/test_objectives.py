"""Objectives: names, limits, and statistics in which unanswered requests wait for ever."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.capacity.objectives import Objectives, is_objective, statistics
from workbench.errors import ConfigError
from workbench.metrics import SLO, RequestColumns, RequestRecord, StepLog, summarize


def record(i: int, ttft: float, tokens: int = 3, reason: str = "length") -> RequestRecord:
    times = float(i) + ttft + 0.1 * np.arange(tokens)
    answered = reason == "length"
    return RequestRecord(
        str(i), 0, float(i), float(i), float(times[-1]) if answered else None, 10,
        tokens if answered else 0, 0, 0, reason, times if answered else np.empty(0),
    )  # fmt: skip


def of(records: list[RequestRecord]) -> dict[str, float]:
    columns = RequestColumns.from_records(records)
    return statistics(columns, np.ones(len(records), dtype=np.bool_), SLO(ttft_s=1.0))


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=40))
def test_statistics_are_those_of_the_summary(ttfts: list[float]) -> None:
    records = [record(i, ttft) for i, ttft in enumerate(ttfts)]
    told, summary = of(records), summarize(records, StepLog())
    for name in ("ttft", "tpot", "itl", "e2e", "queue"):
        for statistic in ("mean", "p50", "p90", "p95", "p99", "max"):
            assert told[f"{name}_{statistic}"] == pytest.approx(summary[f"{name}_s_{statistic}"])


def test_unanswered_requests_wait_for_ever() -> None:
    told = of([*(record(i, 0.5) for i in range(98)), record(98, 0.5, reason="error"),
               record(99, 0.5, reason="error")])  # fmt: skip
    assert told["ttft_p50"] == pytest.approx(0.5)
    assert told["ttft_p95"] == pytest.approx(0.5)
    assert told["ttft_p99"] is None
    assert told["ttft_mean"] is None
    assert told["attainment"] == pytest.approx(0.98)
    objectives = Objectives({"ttft_p99": 1.0, "ttft_p50": 1.0, "attainment": 0.99})
    assert objectives.misses(told) == ["ttft_p99", "attainment"]
    assert "unanswered" in objectives.explain("ttft_p99", told)
    assert objectives.explain("attainment", told) == "98.0% of the requests within the SLO < 99.0%"


def test_an_answer_of_one_token_has_no_gaps_to_be_late() -> None:
    told = of([record(i, 0.5, tokens=1) for i in range(5)])
    assert told["tpot_p99"] == told["itl_p99"] == 0.0


def test_the_worst_miss_comes_first() -> None:
    objectives = Objectives({"ttft_p99": 1.0, "tpot_p99": 0.1, "e2e_p50": 9.0})
    told = {"ttft_p99": 2.0, "tpot_p99": 0.5, "e2e_p50": 3.0}
    assert objectives.misses(told) == ["tpot_p99", "ttft_p99"]
    assert objectives.explain("tpot_p99", told) == "TPOT p99 500 ms > 100 ms"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "at least one"),
        ({"ttft_p98": 1.0}, "no such objective"),
        ({"ttft_p99": 0.0}, "> 0 s"),
        ({"ttft_p99": math.inf}, "finite"),
        ({"ttft_p99": "fast"}, "expected a number"),
        ({"attainment": 1.5}, "share"),
    ],
)
def test_limits_that_cannot_be_are_refused(limits: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Objectives(limits)


def test_limits_of_single_requests_are_no_objectives() -> None:
    assert is_objective("ttft_p99")
    assert is_objective("attainment")
    assert not is_objective("ttft_s")
