"""The trace is valid, nests properly, is bounded, and is the same every time."""

import json
from collections import Counter

import numpy as np
import pytest

from experiments.timeline import write_timeline
from workbench.metrics import RequestRecord, StepLog


def make_run(requests=3, steps=4):
    records = [
        RequestRecord(
            f'r"{i}', i % 2, float(i), i + 0.25, i + 2.0, 10, 3, 0, 0, "stop",
            np.array([i + 0.5, i + 1.0, i + 2.0]),
        )
        for i in range(requests)
    ]  # fmt: skip
    log = StepLog()
    for i in range(steps):
        log.append(i % 2, float(i), 0.5, 11, 10, 1, 2, 1, i % 3, 5)
    return records, log


def load(path):
    trace = json.loads(path.read_text())
    return trace, trace["traceEvents"]


def test_every_event_has_what_its_phase_needs(tmp_path):
    write_timeline(tmp_path / "t.json", *make_run())
    trace, events = load(tmp_path / "t.json")
    assert trace["displayTimeUnit"] == "ms"
    for event in events:
        assert event["ph"] in "MXCbei"
        assert isinstance(event["pid"], int)
        assert event["pid"] > 0
        assert event["name"]
        if event["ph"] == "M":
            assert event["args"]
            continue
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] > 0
        if event["ph"] in "be":
            assert {"id", "cat"} <= event.keys()
        if event["ph"] == "C":
            assert all(isinstance(v, int | float) for v in event["args"].values())


def test_counts_and_names(tmp_path):
    write_timeline(tmp_path / "t.json", *make_run())
    _, events = load(tmp_path / "t.json")
    phases = Counter(e["ph"] for e in events)
    assert phases["X"] == 4
    assert phases["C"] == 8
    assert phases["b"] == phases["e"] == 3 * 4
    preempted = [e for e in events if e.get("cat") == "preemption"]
    assert [e["args"]["preempted"] for e in preempted] == [1, 2]
    names = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {"replica 0", "replica 1"}
    assert {e["name"] for e in events if e["ph"] == "X"} == {"mixed"}


def test_slices_of_a_request_nest(tmp_path):
    write_timeline(tmp_path / "t.json", *make_run())
    _, events = load(tmp_path / "t.json")
    for number in range(3):
        stack = []
        mine = [e for e in events if e.get("id") == number]
        assert [e["ts"] for e in mine] == sorted(e["ts"] for e in mine)
        for event in mine:
            if event["ph"] == "b":
                stack.append(event["name"])
            else:
                assert stack.pop() == event["name"]
        assert stack == []
        assert [e["name"] for e in mine if e["ph"] == "b"] == [
            f'r"{number}', "queued", "prefill", "decode",
        ]  # fmt: skip


def test_times_are_microseconds(tmp_path):
    write_timeline(tmp_path / "t.json", *make_run(1, 1))
    _, events = load(tmp_path / "t.json")
    step = next(e for e in events if e["ph"] == "X")
    assert (step["ts"], step["dur"]) == (0.0, 500_000.0)


@pytest.mark.parametrize(
    ("record", "names"),
    [
        (RequestRecord("x", 0, 1.0, None, 1.0, 9, 0, 0, 0, "ignored", np.empty(0)), []),
        (RequestRecord("x", 0, 1.0, None, 3.0, 9, 0, 0, 0, "abort", np.empty(0)), ["queued"]),
        (
            RequestRecord("x", 0, 1.0, 2.0, 3.0, 9, 0, 0, 0, "abort", np.empty(0)),
            ["queued", "prefill"],
        ),
        (
            RequestRecord("x", 0, 1.0, 1.0, None, 9, 2, 0, 0, "unfinished", np.array([2.0, 3.0])),
            ["prefill", "decode"],
        ),
        (RequestRecord("x", 0, 1.0, None, None, 9, 0, 0, 0, "unfinished", np.empty(0)), []),
    ],
)
def test_unusual_ends(tmp_path, record, names):
    write_timeline(tmp_path / "t.json", [record], StepLog())
    _, events = load(tmp_path / "t.json")
    begun = [e["name"] for e in events if e["ph"] == "b"]
    assert begun == (["x", *names] if names else [])
    assert sum(e["ph"] == "i" for e in events) == (not names)


def test_a_long_run_is_cut_and_says_so(tmp_path):
    records, steps = make_run(10, 10)
    metadata = write_timeline(tmp_path / "t.json", records, steps, max_requests=4, max_steps=8)
    trace, events = load(tmp_path / "t.json")
    assert trace["otherData"] == metadata
    assert metadata["requests_shown"] == 4
    assert metadata["requests_left_out"] == 6
    assert metadata["window_end_s"] == 4.0
    assert metadata["steps_shown"] == sum(e["ph"] == "X" for e in events) == 4
    assert "note" in metadata
    later = write_timeline(
        tmp_path / "t.json", records, steps, start_s=5.0, max_requests=4, max_steps=2
    )
    assert (later["window_start_s"], later["window_end_s"]) == (5.0, 7.0)
    assert later["steps_shown"] == 2


def test_a_short_run_is_whole(tmp_path):
    metadata = write_timeline(tmp_path / "t.json", *make_run())
    assert metadata["requests_left_out"] == metadata["steps_left_out"] == 0
    assert "note" not in metadata


def test_an_empty_run_is_a_valid_trace(tmp_path):
    write_timeline(tmp_path / "t.json", [], StepLog())
    _, events = load(tmp_path / "t.json")
    assert events == []


def test_same_run_same_bytes(tmp_path):
    for name in ("1", "2"):
        write_timeline(tmp_path / name, *make_run())
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
