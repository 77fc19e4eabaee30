"""Requests, open loops, and columns of block ids."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import WorkloadError
from workbench.workload.base import (
    ListWorkload,
    OpenLoopWorkload,
    RequestColumns,
    WorkloadRequest,
)
from workbench.workload.block_ids import BlockIdColumn, first_unchained_row
from workbench.workload.sessions import SessionWorkload
from workbench.workload.table_trace import CsvTrace


def columns(arrivals, **more):
    n = len(arrivals)
    return RequestColumns(
        arrival_times=np.array(arrivals, float),
        num_prompt_tokens=np.arange(1, n + 1),
        num_output_tokens=np.arange(2, n + 2),
        **more,
    )


def test_an_open_loop_gives_its_requests_again_and_sets_nothing_off():
    workload = OpenLoopWorkload(columns([0.0, 0.5], deadlines=np.array([np.nan, 2.0])))
    first = list(workload.initial())
    assert first == list(workload.initial())
    assert workload.num_requests == 2
    assert first[0] == WorkloadRequest("0", 0.0, 1, 2)
    assert first[1] == WorkloadRequest("1", 0.5, 2, 3, deadline=2.0)
    assert type(first[1].num_prompt_tokens) is int
    assert type(first[1].arrival_time) is float
    assert workload.after_finish("0", 9.0) == ()
    assert pickle.loads(pickle.dumps(first)) == first


def test_unsorted_arrivals_are_refused():
    with pytest.raises(WorkloadError, match=r"request 2 arrives at 0.5 s, before request 1"):
        OpenLoopWorkload(columns([0.0, 1.0, 0.5]))
    with pytest.raises(WorkloadError, match="request b arrives"):
        ListWorkload([WorkloadRequest("a", 1.0, 1, 1), WorkloadRequest("b", 0.0, 1, 1)])


def test_a_list_of_requests_keeps_its_own_ids():
    requests = [WorkloadRequest("a", 1.0, 1, 1), WorkloadRequest("b", 1.0, 1, 1)]
    workload = ListWorkload(requests)
    assert list(workload.initial()) == requests
    assert (workload.num_requests, workload.after_finish("a", 2.0)) == (2, ())
    with pytest.raises(WorkloadError, match="same request_id"):
        ListWorkload([requests[0], requests[0]])


def test_rows_are_taken_with_all_their_columns():
    ids = BlockIdColumn(*(np.array(c) for c in ([0, 0], [1, 1], [10, 20], [0, 0], [2, 3])))
    taken = columns(
        [0.0, 1.0],
        hash_ids=ids,
        hash_block_size=4,
        priorities=np.array([3, 4]),
        client_ids=["a", "b"],
        session_ids=[None, "s"],
    ).take(np.array([1]))
    (request,) = taken.requests(["x"])
    assert request == WorkloadRequest("x", 1.0, 2, 3, None, (0, 21, 22), 4, None, 4, "b", "s", None)


small = st.integers(0, 6)
rows = st.lists(st.tuples(small, small, st.integers(100, 200), small, small), max_size=8)


@settings(deadline=None, max_examples=60)
@given(rows)
def test_block_id_ranges_mean_what_they_say(raw):
    raw = [(s, k, own, a, a + length) for s, k, own, a, length in raw]
    column = BlockIdColumn(*np.array(raw, np.int64).reshape(-1, 5).T)
    expected = [tuple(s + j if j < k else own + j for j in range(a, b)) for s, k, own, a, b in raw]
    assert list(column) == expected
    assert [column[i] for i in range(len(column))] == expected
    assert list(column[1:]) == expected[1:]


trees = st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=12)


@settings(deadline=None, max_examples=100)
@given(trees, trees)
def test_chaining_is_told_as_the_plain_rule_tells_it(prefixes, raw):
    names: dict[tuple[int, ...], int] = {}
    chained = [
        [names.setdefault(tuple(row[: i + 1]), len(names)) for i in range(len(row))]
        for row in prefixes
    ]
    assert first_unchained_row(chained) is None

    parents: dict[int, int | None] = {}
    expected = None
    for i, row in enumerate(raw):
        for before, block in zip([None, *row], row, strict=False):
            if parents.setdefault(block, before) != before and expected is None:
                expected = (i, block)
    assert first_unchained_row(raw) == expected


@pytest.mark.parametrize("late", [2.0**32 + 1, 1e18, 1e300, float("inf"), float("nan")])
def test_an_arrival_at_which_latencies_would_be_lost_is_refused(late):
    with pytest.raises(WorkloadError, match=r"beyond 4294967296 s.*microsecond: count seconds"):
        ListWorkload([WorkloadRequest("a", late, 1, 1)])
    with pytest.raises(WorkloadError, match="beyond 4294967296 s"):
        OpenLoopWorkload(columns([late]))
    with pytest.raises(WorkloadError, match="a session starts at"):
        SessionWorkload(columns([0]), np.array([0]), np.array([late]), np.zeros(1))
    with pytest.raises(WorkloadError, match="a request waits for"):
        SessionWorkload(columns([0]), np.array([0]), np.zeros(1), np.array([late]))


def test_the_last_time_that_is_taken_keeps_the_microsecond():
    ListWorkload([WorkloadRequest("a", 2.0**32, 1, 1)])
    assert np.nextafter(2.0**32, 0.0) + 1e-6 > np.nextafter(2.0**32, 0.0)


@pytest.mark.parametrize("rate_scale", [1e-10, 1e-300])
def test_arrivals_are_looked_at_after_they_were_stretched(tmp_path, rate_scale):
    trace = tmp_path / "trace.csv"
    trace.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n1e9,1,1\n")
    with pytest.raises(WorkloadError, match=r"with rate_scale=.*raise workload\.rate_scale"):
        CsvTrace(str(trace), rate_scale=rate_scale)
