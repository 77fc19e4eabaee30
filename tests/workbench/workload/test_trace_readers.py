"""Trace readers on small files written here: formats, windows, scaling."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import WorkloadError
from workbench.workload.azure import AzureTrace
from workbench.workload.base import WorkloadRequest
from workbench.workload.block_trace import BlockTrace
from workbench.workload.burstgpt import BurstGPTTrace
from workbench.workload.mooncake import MooncakeTrace
from workbench.workload.table_trace import CsvTrace, JsonlTrace


def write(path, text):
    path.write_text(text)
    return str(path)


def test_azure_counts_seconds_from_its_first_row(tmp_path):
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n"
        "2023-11-16 18:15:50.9951690,396,109\r\n"
    )
    requests = list(AzureTrace(write(tmp_path / "a.csv", text)).initial())
    assert requests == [
        WorkloadRequest("0", 0.0, 374, 44),
        WorkloadRequest("1", pytest.approx(4.314579, abs=1e-9), 396, 109),
    ]


def test_azure_of_2024_has_time_zones(tmp_path):
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n"
        "2024-05-10 00:00:01.009930+00:00,2399,6\n"
    )
    requests = list(AzureTrace(write(tmp_path / "a.csv", text)).initial())
    assert [r.arrival_time for r in requests] == [0.0, 1.0]


def test_mooncake_brings_its_block_ids(tmp_path):
    rows = [
        {"timestamp": 0, "input_length": 1025, "output_length": 5, "hash_ids": [0, 1, 2]},
        {"timestamp": 1500, "input_length": 1024, "output_length": 6, "hash_ids": [0, 3]},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    requests = list(MooncakeTrace(write(tmp_path / "m.jsonl", text)).initial())
    assert requests == [
        WorkloadRequest("0", 0.0, 1025, 5, hash_ids=(0, 1, 2), hash_block_size=512),
        WorkloadRequest("1", 1.5, 1024, 6, hash_ids=(0, 3), hash_block_size=512),
    ]


def test_burstgpt_skips_failed_requests(tmp_path):
    text = (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n"
        "45,ChatGPT,0,0,0,Conversation log\n"
        "118.5,GPT-4,1087,230,1317,API log\n"
    )
    workload = BurstGPTTrace(write(tmp_path / "b.csv", text))
    assert workload.num_skipped == 1
    assert list(workload.initial()) == [
        WorkloadRequest("0", 0.0, 472, 18),
        WorkloadRequest("1", 113.5, 1087, 230),
    ]


def test_burstgpt_knows_sessions_where_the_release_does(tmp_path):
    text = (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,"
        "Log Type\n1,s1,2.5,GPT-4,10,20,30,API log\n2,,1.0,GPT-4,10,20,30,API log\n"
    )
    requests = list(BurstGPTTrace(write(tmp_path / "b.csv", text)).initial())
    assert [r.session_id for r in requests] == ["s1", None]


def test_block_trace_knows_the_blocks_of_answers(tmp_path):
    row = {
        "input_toks": 33,
        "output_toks": 20,
        "arrival_time_ns": 2_500_000_000,
        "prompt_block_ids16": [0, 1],
        "full_block_ids16": [0, 1, 2],
    }
    requests = list(BlockTrace(write(tmp_path / "b.jsonl", json.dumps(row))).initial())
    assert requests == [
        WorkloadRequest("0", 2.5, 33, 20, hash_ids=(0, 1), hash_block_size=16, output_hash_ids=(2,))
    ]


HEADER = "arrived_at,num_prefill_tokens,num_decode_tokens"


def test_csv_takes_optional_columns_extra_ones_and_blank_lines(tmp_path):
    text = (
        f"\ufeffnote, {HEADER.replace(',', ', ')},priority,client_id,session_id,deadline,hash_ids\n"
        "x,0.5,20,3,-1,alice,s,1.5,[7]\n"
        "\n"
        "x,1,4e1,3.0,,,,,7 8\n"
        "\n"
    )
    path = tmp_path / "c.csv"
    path.write_text(text, encoding="utf-8")
    assert list(CsvTrace(str(path)).initial()) == [
        WorkloadRequest("0", 0.5, 20, 3, None, (7,), 16, None, -1, "alice", "s", 1.5),
        WorkloadRequest("1", 1.0, 40, 3, None, (7, 8), 16),
    ]


def test_jsonl_takes_the_same_fields(tmp_path):
    rows = [
        {"arrived_at": 0, "num_prefill_tokens": 8, "num_decode_tokens": 1, "hash_ids": [1, 2]},
        {
            "arrived_at": 0.25,
            "num_prefill_tokens": 9,
            "num_decode_tokens": 2,
            "hash_ids": [1, 2, 3],
            "client_id": "c",
            "deadline": 4.0,
        },
    ]
    text = "\n".join(map(json.dumps, rows))
    workload = JsonlTrace(write(tmp_path / "c.jsonl", text), hash_block_size=4)
    assert list(workload.initial()) == [
        WorkloadRequest("0", 0.0, 8, 1, hash_ids=(1, 2), hash_block_size=4),
        WorkloadRequest(
            "1", 0.25, 9, 2, hash_ids=(1, 2, 3), hash_block_size=4, client_id="c", deadline=4.0
        ),
    ]


def csv_of(times):
    return "\n".join([HEADER, *(f"{t},{i + 1},1" for i, t in enumerate(times))])


def test_the_window_becomes_time_0_and_rates_scale(tmp_path):
    path = write(tmp_path / "c.csv", csv_of([0, 10, 20, 30, 40]))
    requests = list(CsvTrace(path, start=10, duration=30, rate_scale=2.0).initial())
    assert [(r.request_id, r.arrival_time, r.num_prompt_tokens) for r in requests] == [
        ("0", 0.0, 2),
        ("1", 5.0, 3),
        ("2", 10.0, 4),
    ]
    assert CsvTrace(path, start=10, max_requests=2).num_requests == 2
    assert CsvTrace(path, max_requests=99).num_requests == 5


def test_deadlines_keep_their_distance(tmp_path):
    path = write(tmp_path / "c.csv", f"{HEADER},deadline\n10,1,1,13\n20,1,1,\n")
    first, second = CsvTrace(path, start=5, rate_scale=2.0).initial()
    assert (first.arrival_time, first.deadline) == (2.5, 5.5)
    assert (second.arrival_time, second.deadline) == (7.5, None)


def test_unsorted_rows_are_refused_or_sorted(tmp_path):
    path = write(tmp_path / "c.csv", csv_of([0, 3, 2, 2]))
    with pytest.raises(WorkloadError) as error:
        CsvTrace(path)
    assert str(error.value) == (
        f"{path}, line 4: the arrival at 2.000000 s is before the one on line 3 at 3.000000 s; "
        "sort the file or set workload.sort=true"
    )
    requests = list(CsvTrace(path, sort=True).initial())
    assert [(r.arrival_time, r.num_prompt_tokens) for r in requests] == [
        (0, 1), (2, 3), (2, 4), (3, 2),
    ]  # fmt: skip


def test_a_relative_path_lies_in_the_traces_folder(tmp_path):
    write(tmp_path / "c.csv", csv_of([0]))
    assert CsvTrace("c.csv", traces_dir=str(tmp_path)).num_requests == 1
    assert CsvTrace(str(tmp_path / "c.csv"), traces_dir="elsewhere").num_requests == 1


rows = st.lists(
    st.tuples(st.floats(0, 1e6), st.integers(1, 10**6), st.integers(1, 10**6)), min_size=1
)


@settings(deadline=None, max_examples=50)
@given(rows)
def test_csv_and_jsonl_read_back_what_was_written(tmp_path_factory, rows):
    rows = sorted(rows, key=lambda row: row[0])
    folder = tmp_path_factory.mktemp("traces")
    names = HEADER.split(",")
    table = "\n".join([HEADER, *(",".join(map(repr, row)) for row in rows)])
    lines = "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)
    expected = [WorkloadRequest(str(i), *row) for i, row in enumerate(rows)]
    assert list(CsvTrace(write(folder / "t.csv", table)).initial()) == expected
    assert list(JsonlTrace(write(folder / "t.jsonl", lines)).initial()) == expected


def test_columns_are_open_to_numpy(tmp_path):
    columns = CsvTrace(write(tmp_path / "c.csv", csv_of([0, 1]))).columns
    assert np.diff(columns.arrival_times).tolist() == [1.0]
