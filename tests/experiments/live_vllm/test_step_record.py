"""Lines of the recorder inside a server, and vLLM's own log beside them."""

import json

import pytest

from experiments.live_vllm.errors import ServerError
from experiments.live_vllm.iteration_log import (
    Iteration,
    iterations_of_log,
    iterations_of_record,
    share_equal,
)
from experiments.live_vllm.step_record import Add, Row, Schedule, StepRecord, Update, client_name

LINES = [
    ["settings", {"max_num_seqs": 4}],
    ["add", 1.0, "cmpl-low-7-0-89ab0123", 40, 5],
    [
        "schedule",
        1.1,
        1.2,
        [["cmpl-low-7-0-89ab0123", 0, 32, 0], ["cmpl-b-0", 9, 1, 3]],
        [],
        2,
        250,
    ],
    ["update", 1.3, 1.4, 2],
]
LOG = """
(APIServer pid=1) INFO 11-21 08:18:58 [loggers.py:199] Engine 000: Iteration(0): \
1 context requests, \
32 context tokens, 1 generation requests, 1 generation tokens, iteration elapsed time: 17.87 ms, \
CPU KV cache usage: 1.0%
(APIServer pid=1) INFO 11-21 08:18:59 [loggers.py:271] Engine 000: Avg prompt throughput: 1.0
"""


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_events(tmp_path):
    record = StepRecord(write(tmp_path / "steps", LINES))
    rows = (Row("low-7", 0, 32, 0), Row("b", 9, 1, 3))
    assert record.settings == {"max_num_seqs": 4}
    assert record.new_events() == [
        Add(1.0, "low-7", 40, 5),
        Schedule(1.1, 1.2, rows, (), 2, 250),
        Update(1.3, 1.4, 2),
    ]
    assert record.new_events() == []


def test_a_line_is_read_once_it_is_whole(tmp_path):
    path = write(tmp_path / "steps", LINES[:1])
    record = StepRecord(path)
    line = json.dumps(LINES[3])
    with path.open("a") as file:
        file.write(line[:9])
    assert record.new_events() == []
    with path.open("a") as file:
        file.write(line[9:] + "\n")
    assert record.new_events() == [Update(1.3, 1.4, 2)]


def test_a_server_that_has_run_before(tmp_path):
    record = StepRecord(write(tmp_path / "steps", LINES), from_start=False)
    assert record.new_events() == []


@pytest.mark.parametrize("text", ["", "no json\n", '["add", 1.0]\n', "[1]\n"])
def test_no_record(tmp_path, text):
    (tmp_path / "steps").write_text(text)
    with pytest.raises(ServerError, match="--scheduler-cls"):
        StepRecord(tmp_path / "steps")
    with pytest.raises(ServerError, match="no steps of a vLLM server"):
        StepRecord(tmp_path / "missing")


@pytest.mark.parametrize("line", [["jump", 1], ["update", 1.0], ["add", 1.0, 3, 4, 5]])
def test_a_line_that_is_no_event(tmp_path, line):
    record = StepRecord(write(tmp_path / "steps", [LINES[0], line]))
    with pytest.raises(ServerError, match="no event of a step record"):
        record.new_events()


def test_names():
    assert client_name("cmpl-low.2-17-0-0123abcd") == "low.2-17"
    assert client_name("cmpl-low-17-0") == "low-17"
    assert client_name("something-else") == "something-else"


def test_the_log_says_what_the_record_says(tmp_path):
    noted = iterations_of_record(StepRecord(write(tmp_path / "steps", LINES)).new_events())
    told = iterations_of_log(LOG.splitlines())
    assert noted == told == [Iteration(1, 32, 1, 1)]
    assert share_equal(told, noted) == 1.0
    assert share_equal(told, noted * 2) == 0.5
    assert share_equal([], noted) is None
