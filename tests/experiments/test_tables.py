"""Parquet files and JSON: columns as agreed, and the way back."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.tables import (
    json_safe,
    read_requests,
    read_requests_frame,
    read_steps,
    read_steps_frame,
    requests_frame,
    requests_table,
    steps_frame,
    write_requests_parquet,
    write_steps_parquet,
    write_summary_json,
)
from workbench.metrics import RequestColumns, RequestRecord, StepLog


def some_records():
    times = np.array([1.25, 1.5, 2.5])
    return [
        RequestRecord("a", 0, 0.5, 1.0, 2.5, 100, 3, 32, 1, "stop", times, "x", 2),
        RequestRecord("b", 1, 0.75, 1.0, 1.5, 50, 1, 0, 0, "length", np.array([1.5])),
        RequestRecord("c", 0, 1.0, None, 1.0, 9999, 0, 0, 0, "ignored", np.empty(0)),
        RequestRecord("d", 0, 2.0, None, None, 10, 0, 0, 0, "unfinished", np.empty(0)),
    ]


def some_steps():
    steps = StepLog()
    steps.append(0, 0.0, 0.25, 100, 100, 0, 1, 2, 0, 7)
    steps.append(1, 0.125, 0.5, 51, 50, 1, 2, 0, 1, 9)
    return steps


def test_requests_parquet_has_the_agreed_columns(tmp_path):
    write_requests_parquet(tmp_path / "requests.parquet", some_records())
    schema = pq.read_schema(tmp_path / "requests.parquet")
    assert schema.names == [
        "request_id",
        "replica",
        "arrival_s",
        "first_scheduled_s",
        "first_token_s",
        "finish_s",
        "prompt_tokens",
        "output_tokens",
        "cached_tokens",
        "preemptions",
        "finish_reason",
        "itl_s",
        "client_id",
        "priority",
        "finish_detail",
    ]
    assert schema.field("itl_s").type == pa.list_(pa.float64())
    assert schema.field("replica").type == pa.int64()


def test_requests_parquet_holds_the_values(tmp_path):
    write_requests_parquet(tmp_path / "requests.parquet", some_records())
    frame = pd.read_parquet(tmp_path / "requests.parquet")
    assert frame["itl_s"].map(list).tolist() == [[0.25, 1.0], [], [], []]
    assert frame["first_token_s"].tolist()[:2] == [1.25, 1.5]
    table = pq.read_table(tmp_path / "requests.parquet")
    assert table["first_scheduled_s"].to_pylist() == [1.0, 1.0, None, None]
    assert table["finish_s"].null_count == 1


def test_reasons_come_back_and_files_of_earlier_versions_have_none(tmp_path):
    path = tmp_path / "requests.parquet"
    records = some_records()
    records[2].finish_detail = "9999 tokens are too many"
    write_requests_parquet(path, records)
    details = [r.finish_detail for r in read_requests(path)]
    assert details == [None, None, "9999 tokens are too many", None]
    pq.write_table(pq.read_table(path).drop_columns(["finish_detail"]), path)
    assert [r.finish_detail for r in read_requests(path)] == [None] * 4


@pytest.mark.parametrize("count", [0, 1, 4])
def test_requests_come_back(tmp_path, count):
    records = some_records()[:count]
    write_requests_parquet(tmp_path / "r.parquet", records)
    assert read_requests(tmp_path / "r.parquet") == records


def test_requests_without_any_token_come_back(tmp_path):
    records = some_records()[2:]
    write_requests_parquet(tmp_path / "r.parquet", records)
    assert read_requests(tmp_path / "r.parquet") == records


@given(st.lists(st.lists(st.floats(0, 1e3), max_size=5), max_size=8))
def test_token_times_come_back_up_to_rounding(tmp_path_factory, lists):
    records = []
    for i, gaps in enumerate(lists):
        times = 3.0 + np.cumsum(np.array(gaps))
        end = float(times[-1]) if len(times) else 3.0
        records.append(RequestRecord(str(i), 0, 1.0, 2.0, end, 5, len(times), 0, 0, "stop", times))
    path = tmp_path_factory.mktemp("tables") / "r.parquet"
    write_requests_parquet(path, records)
    for before, after in zip(records, read_requests(path), strict=True):
        np.testing.assert_allclose(after.token_times_s, before.token_times_s, rtol=1e-12)


def test_steps_come_back(tmp_path):
    write_steps_parquet(tmp_path / "s.parquet", some_steps())
    assert read_steps(tmp_path / "s.parquet") == some_steps()
    pd.testing.assert_frame_equal(
        read_steps_frame(tmp_path / "s.parquet"), steps_frame(some_steps())
    )


def test_an_empty_step_log_comes_back(tmp_path):
    write_steps_parquet(tmp_path / "s.parquet", StepLog())
    assert read_steps(tmp_path / "s.parquet") == StepLog()


def test_frame_adds_the_latencies(tmp_path):
    frame = requests_frame(some_records())
    assert frame["ttft_s"].tolist()[:2] == [0.75, 0.75]
    assert frame["e2e_s"].isna().tolist() == [False, False, True, True]
    write_requests_parquet(tmp_path / "r.parquet", some_records())
    again = read_requests_frame(tmp_path / "r.parquet")
    pd.testing.assert_frame_equal(again, frame)


def test_columns_and_records_give_the_same_table():
    columns = RequestColumns.from_records(some_records())
    assert requests_table(columns).equals(requests_table(some_records()))


def test_same_records_same_bytes(tmp_path):
    for name in ("1", "2"):
        write_requests_parquet(tmp_path / name, some_records())
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_json_safe_removes_what_json_cannot_say():
    value = {
        "a": np.float64("nan"),
        "b": np.int64(3),
        "c": [float("inf"), np.bool_(True)],
        4: np.array([1.5, 2.5]),
        "d": "text",
        "e": None,
    }
    safe = json_safe(value)
    assert safe == {"a": None, "b": 3, "c": [None, True], "4": [1.5, 2.5], "d": "text", "e": None}
    json.dumps(safe, allow_nan=False)


def test_summary_json_appears_whole(tmp_path):
    write_summary_json(tmp_path / "summary.json", {"b": 1, "a": float("nan")})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"b": 1, "a": None}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
