"""What is wrong with a trace is told in one line: file, line, value, limit, cure."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import WorkloadError
from workbench.workload.azure import AzureTrace
from workbench.workload.block_trace import BlockTrace
from workbench.workload.burstgpt import BurstGPTTrace
from workbench.workload.mooncake import MooncakeTrace
from workbench.workload.table_trace import CsvTrace, JsonlTrace

HEADER = "arrived_at,num_prefill_tokens,num_decode_tokens"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"


def mooncake(timestamp=0, input_length=600, output_length=5, hash_ids=(0, 1)):
    row = {
        "timestamp": timestamp,
        "input_length": input_length,
        "output_length": output_length,
        "hash_ids": list(hash_ids),
    }
    return json.dumps(row)


def blocks(prompt, full):
    return json.dumps(
        {
            "input_toks": 32,
            "output_toks": 16,
            "arrival_time_ns": 0,
            "prompt_block_ids16": prompt,
            "full_block_ids16": full,
        }
    )


CASES = [
    (CsvTrace, "", "FILE is empty; name an existing file with workload.path=FILE"),
    (CsvTrace, " \n\n", "FILE is empty"),
    (
        CsvTrace,
        HEADER + "\n",
        "FILE has a header and no request: add a row a request",
    ),
    (
        CsvTrace,
        "arrived_at,tokens\n0,1\n",
        "FILE lacks the column num_prefill_tokens, num_decode_tokens: found arrived_at, tokens; "
        "needed are arrived_at, num_prefill_tokens, num_decode_tokens; rename",
    ),
    (CsvTrace, HEADER.replace(",", ";") + "\n0;1;1\n", "found arrived_at;num_prefill_tokens;num"),
    (CsvTrace, f"{HEADER}\n0,1,1\n0,1\n", "FILE, line 3: the row has 2 fields, the header 3"),
    (CsvTrace, f"{HEADER}\n\n0,1,1\n\nx,1,1\n", "FILE, line 5: arrived_at is 'x', which is not a"),
    (
        CsvTrace,
        f"{HEADER}\n0,,1\n",
        "FILE, line 2: num_prefill_tokens is '', which is not a number",
    ),
    (CsvTrace, f"{HEADER}\nnan,1,1\n", "FILE, line 2: arrived_at is nan, but it must be finite"),
    (CsvTrace, f"{HEADER}\n0,1_000,1\n", "line 2: num_prefill_tokens is '1_000', which is not a n"),
    (
        CsvTrace,
        f"{HEADER},num_prefill_tokens\n0,1,1,2\n",
        "FILE has 2 columns num_prefill_tokens, and only one can count: rename or remove",
    ),
    (
        CsvTrace,
        f"{HEADER}\n0,1,1\n1e18,1,1\n",
        "FILE: a request arrives at 1e+18 s is beyond 4294967296 s, where times are no longer kept "
        "to the microsecond: give arrivals in seconds since the start of the trace",
    ),
    (CsvTrace, f"{HEADER}\n0,1,inf\n", "line 2: num_decode_tokens is inf, but it must be finite"),
    (
        CsvTrace,
        f"{HEADER}\n-1,1,1\n",
        "line 2: arrived_at is -1, but it must be at least 0; correct",
    ),
    (
        CsvTrace,
        f"{HEADER}\n0,1,1\n0,0,1\n",
        "line 3: num_prefill_tokens is 0, but it must be at le",
    ),
    (CsvTrace, f"{HEADER}\n0,-5,1\n", "num_prefill_tokens is -5, but it must be at least 1"),
    (CsvTrace, f"{HEADER}\n0,1,0\n", "num_decode_tokens is 0, but it must be at least 1"),
    (CsvTrace, f"{HEADER}\n0,1.5,1\n", "num_prefill_tokens is 1.5, but it must be a whole number"),
    (CsvTrace, f"{HEADER}\n0,9e12,1\n", "num_prefill_tokens is 9e12, but it must be at most 1e+09"),
    (CsvTrace, f"{HEADER},priority\n0,1,1,low\n", "priority is 'low', which is not a number"),
    (CsvTrace, f"{HEADER},deadline\n5,1,1,3\n", "deadline is 3, but the request arrives at 5.0 s"),
    (
        CsvTrace,
        f"{HEADER},hash_ids\n0,40,1,1\n",
        "hash_ids has 1 ids, but 40 tokens in blocks of 16 make 2 to 3",
    ),
    (CsvTrace, f"{HEADER},hash_ids\n0,20,1,a\n", "hash_ids is 'a', but it must be a list of ids"),
    (
        CsvTrace,
        f'{HEADER},note\n0,1,1,"two\nlines"\n0,x,1,\n',
        "FILE, line 4: num_prefill_tokens is",
    ),
    (CsvTrace, b"\xff\xfe\x00a", "FILE is not UTF-8 text (byte 0); unpack or convert the file"),
    (
        JsonlTrace,
        '{"arrived_at": 0}\n',
        "FILE lacks the column num_prefill_tokens, num_decode_tokens",
    ),
    (JsonlTrace, "[1]\n", "FILE, line 1: list instead of a JSON object"),
    (AzureTrace, "", "FILE is empty; fetch it with `python -m experiments.fetch_traces --out DIR`"),
    (
        AzureTrace,
        f"{AZURE}\n18:15,1,1\n",
        "line 2: TIMESTAMP is '18:15', but it must be like '2023-",
    ),
    (AzureTrace, f"{AZURE}\nnow,1,1\n", "TIMESTAMP is 'now'"),
    (AzureTrace, f"{AZURE}\n2023-11-16 99:15:46.68,1,1\n", "TIMESTAMP is '2023-11-16 99:15:46.68'"),
    (AzureTrace, f"{AZURE}\n2023-11-16 18:15:46.68,0,1\n", "line 2: ContextTokens is 0, but"),
    (MooncakeTrace, mooncake() + "\n" + mooncake()[:40], "FILE, line 2: not valid JSON ("),
    (MooncakeTrace, "\n" + mooncake() + "\n{}", "FILE, line 3: timestamp is missing, found none"),
    (MooncakeTrace, mooncake(input_length="x"), "line 1: input_length is 'x', which is not"),
    (MooncakeTrace, mooncake(timestamp=None), "line 1: timestamp is None, which is not a number"),
    (
        MooncakeTrace,
        mooncake(hash_ids=[0]) + "\n" + mooncake(hash_ids=[0, 1, 2]),
        "FILE, line 2: "
        "hash_ids has 3 ids, but 600 tokens in blocks of 512 make 1 to 2; correct the row",
    ),
    (MooncakeTrace, mooncake(hash_ids=["a", "b"]), "hash_ids holds 'a', but ids are whole numbers"),
    (
        MooncakeTrace,
        mooncake() + "\n" + mooncake(hash_ids=[5, 1]),
        "line 2: id 1 of hash_ids follows",
    ),
    (MooncakeTrace, mooncake(hash_ids=[1, 2**70]), "an id in hash_ids exceeds 64 bits"),
    (MooncakeTrace, mooncake(timestamp=5) + "\n" + mooncake(timestamp=4), "line 2: the arrival at"),
    (BurstGPTTrace, f"{BURST}\n1,GPT-4,5,0,5,API log\n", "FILE holds failed requests only"),
    (BurstGPTTrace, f"{BURST}\n1,G,5,0,5,A\n1,G,0,7,7,A\n", "line 3: Request tokens is 0, but"),
    (BurstGPTTrace, f"{BURST}\n1,G,5,-2,5,A\n", "Response tokens is -2, but it must be at least 0"),
    (
        BlockTrace,
        blocks([0, 1], [0, 2, 3]),
        "full_block_ids16 does not begin with prompt_block_ids16",
    ),
    (BlockTrace, blocks([0], [0, 1, 2]), "prompt_block_ids16 has 1 ids, but 32 tokens"),
    (BlockTrace, blocks(3, [0, 1, 2]), "prompt_block_ids16 is 3, but it must be a list of ids"),
]


def error_of(reader, path, **options):
    with pytest.raises(WorkloadError) as error:
        reader(str(path), **options)
    message = str(error.value)
    assert "\n" not in message
    return message.replace(str(path), "FILE")


@pytest.mark.parametrize(("reader", "content", "expected"), CASES)
def test_a_bad_file_gets_one_clear_line(tmp_path, reader, content, expected):
    path = tmp_path / "trace"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert expected in error_of(reader, path)


def test_a_file_that_is_not_there(tmp_path):
    message = error_of(AzureTrace, tmp_path / "conv.csv")
    assert message == (
        "no trace file FILE; fetch it with `python -m experiments.fetch_traces --out DIR` and set "
        "traces_dir=DIR"
    )
    assert "workload.path=FILE" in error_of(CsvTrace, tmp_path / "none.csv")
    assert "cannot be read" in error_of(CsvTrace, tmp_path)
    with pytest.raises(WorkloadError, match="path is not set; name the trace file"):
        CsvTrace(None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_scale": 0}, "rate_scale is 0, but it must be above 0"),
        ({"rate_scale": "fast"}, "rate_scale is 'fast', which is not a number"),
        ({"max_requests": 0}, "max_requests is 0, but it must be at least 1"),
        ({"start": -1}, "start is -1, but it must be at least 0"),
        ({"duration": 0}, "duration is 0, but it must be above 0"),
        (
            {"start": 7},
            "FILE has no request from 7 s to the end, its requests arrive from 1 s to 5 s",
        ),
        ({"start": 2, "duration": 2}, "FILE has no request from 2 s to 4 s"),
        ({"hash_block_size": 0}, "hash_block_size is 0"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, message):
    path = tmp_path / "c.csv"
    path.write_text(f"{HEADER}\n1,1,1\n5,1,1\n")
    assert message in error_of(CsvTrace, path, **options)


def test_a_misspelt_option_is_named(tmp_path):
    with pytest.raises(TypeError, match="max_request"):
        CsvTrace("c.csv", max_request=3)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60), st.sampled_from([HEADER, AZURE, "", '{"timestamp": 0}']))
def test_rubbish_never_breaks_a_reader(tmp_path_factory, rubbish, start):
    path: Path = tmp_path_factory.mktemp("traces") / "trace"
    path.write_bytes(start.encode() + b"\n" + rubbish)
    for reader in (CsvTrace, JsonlTrace, AzureTrace, MooncakeTrace, BurstGPTTrace, BlockTrace):
        assert "\n" not in message_of(reader, path)


def message_of(reader, path):
    try:
        reader(str(path))
    except WorkloadError as error:
        return str(error)
    return ""


def test_text_of_the_file_cannot_break_the_line(tmp_path):
    path = tmp_path / "trace"
    path.write_text('"arrived\nat",b,c\n1,2,3\n')
    assert "found arrived at, b, c;" in error_of(CsvTrace, path)
    path.write_text(f'{HEADER}\n"-1\n",1,1\n')
    assert "line 2: arrived_at is -1 , but" in error_of(CsvTrace, path)
