"""Properties of the metrics over random runs."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workbench.metrics import SLO, RequestColumns, RequestRecord, StepLog, distribution, summarize
from workbench.metrics.summary import LATENCIES

seconds = st.floats(0, 1e4, allow_nan=False)


@st.composite
def runs(draw):
    """Records that could come from a run: ordered times, all kinds of ends."""
    records = []
    for i in range(draw(st.integers(0, 12))):
        arrival = draw(seconds)
        gaps = draw(st.lists(st.floats(0, 10), max_size=6))
        scheduled = arrival + draw(st.floats(0, 10))
        tokens = scheduled + np.cumsum(np.array([0.1, *gaps]))[: len(gaps)]
        reason = draw(st.sampled_from(["stop", "length", "abort", "ignored", "unfinished"]))
        lost = reason == "ignored"
        tokens = np.empty(0) if lost else tokens
        ends = None if reason == "unfinished" else max([scheduled, *tokens])
        records.append(
            RequestRecord(
                request_id=str(i),
                replica=i % 3,
                arrival_s=arrival,
                first_scheduled_s=None if lost else scheduled,
                finish_s=ends,
                prompt_tokens=draw(st.integers(1, 1000)),
                output_tokens=len(tokens),
                cached_tokens=0,
                preemptions=draw(st.integers(0, 3)),
                finish_reason=reason,
                token_times_s=tokens,
                client_id=draw(st.sampled_from("xyz")),
            )
        )
    return records


@given(hnp.arrays(np.float64, st.integers(1, 300), elements=seconds))
def test_percentiles_are_those_of_numpy(values):
    summary = distribution("x", values)
    for p in (50, 90, 95, 99):
        assert summary[f"x_p{p}"] == pytest.approx(np.percentile(values, p), rel=1e-12, abs=1e-12)
    assert summary["x_max"] == values.max()
    assert summary["x_std"] == pytest.approx(values.std(), rel=1e-9, abs=1e-9)


@given(runs())
def test_gaps_are_those_of_each_request(records):
    columns = RequestColumns.from_records(records)
    expected = [gap for r in records for gap in np.diff(r.token_times_s)]
    assert columns.itl_s.tolist() == expected
    for i, r in enumerate(records):
        mine = columns.itl_s[columns.itl_offsets[i] : columns.itl_offsets[i + 1]]
        assert mine.tolist() == np.diff(r.token_times_s).tolist()


@given(runs())
def test_nothing_is_lost(records):
    summary = summarize(records, StepLog(), SLO(ttft_s=1.0))
    kinds = ("stopped", "length", "aborted", "ignored", "error", "unfinished")
    assert sum(summary[k] for k in kinds) == summary["requests"] == len(records)
    assert summary["output_tokens"] == sum(len(r.token_times_s) for r in records)
    assert summary["preemptions"] == sum(r.preemptions for r in records)
    json.dumps(summary, allow_nan=False)


@given(runs())
def test_latencies_are_ordered(records):
    columns = RequestColumns.from_records(records)
    columns.check_integrity()
    both = columns.completed & (columns.num_tokens > 0)
    assert (columns.queue_s[both] <= columns.ttft_s[both] + 1e-9).all()
    assert (columns.ttft_s[both] <= columns.e2e_s[both] + 1e-9).all()


@given(runs(), seconds)
def test_moving_the_clock_changes_no_latency(records, shift):
    moved = [
        RequestRecord(
            r.request_id,
            r.replica,
            r.arrival_s + shift,
            None if r.first_scheduled_s is None else r.first_scheduled_s + shift,
            None if r.finish_s is None else r.finish_s + shift,
            r.prompt_tokens,
            r.output_tokens,
            r.cached_tokens,
            r.preemptions,
            r.finish_reason,
            r.token_times_s + shift,
            r.client_id,
        )
        for r in records
    ]
    before, after = summarize(records, StepLog()), summarize(moved, StepLog())
    for name in LATENCIES:
        for key in ("mean", "p50", "p99", "max"):
            assert after[f"{name}_{key}"] == pytest.approx(before[f"{name}_{key}"], abs=1e-7)


@given(runs())
def test_a_looser_objective_is_met_by_no_fewer(records):
    columns = RequestColumns.from_records(records)
    strict = SLO(ttft_s=0.5, tpot_s=0.5, e2e_s=1.0).met(columns)
    loose = SLO(ttft_s=5.0, tpot_s=5.0).met(columns)
    assert (loose | ~strict).all()


@given(runs())
def test_columns_give_the_records_back(records):
    assert RequestColumns.from_records(records).records() == records
