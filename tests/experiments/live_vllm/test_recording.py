"""A recording gives back what was written, to the microsecond."""

import json
import lzma

import pytest

from experiments.live_vllm.client import Answer
from experiments.live_vllm.errors import ServerError
from experiments.live_vllm.recorded_session import RecordedSession
from experiments.live_vllm.recording import (
    Head,
    RecordingWriter,
    SeenPhase,
    digest,
    read_head,
    read_recording,
    rounded,
)
from experiments.live_vllm.step_record import Add, Row, Schedule, Update
from tests.experiments.live_vllm.fake_server import SETTINGS
from workbench.errors import ConfigError
from workbench.workload.base import WorkloadRequest

HEAD = Head(["vllm.max_num_seqs=4", "seed=3"], SETTINGS, {"cpu": "one"}, salt=7)
TIMES = [rounded(22698.1 + 0.0123456789 * n**1.5) for n in range(1, 40)]
STEP = Schedule(3.0, 3.1, (Row("a-0", 0, 5, 0), Row("a-1", 16, 1, 2)), ("a-2",), 4, 17)
PHASE = SeenPhase(
    "burst/0",
    "0123",
    [Answer("a-0", rounded(22698.0000004), TIMES), Answer("a-1", 22699.5, [])],
    [Add(2.5, "a-0", 5, 3), STEP, Update(3.2, 3.25, 1)],
    [6.61563e-4, 0.0],
    0.25,
    12.5,
)


def test_what_is_written_is_read(tmp_path):
    file = tmp_path / "recording.jsonl"
    writer = RecordingWriter(file, HEAD)
    assert read_recording(file) == (HEAD, [])
    writer.add(PHASE)
    writer.add(SeenPhase("b", "", [], [], [], None, 0.0))
    head, (first, second) = read_recording(file)
    assert head == read_head(file) == HEAD
    assert first == PHASE
    assert second == SeenPhase("b", "", [], [], [], None, 0.0)
    assert RecordedSession(file).machine == {"cpu": "one"}
    assert RecordedSession(file).salt == 7


def test_a_session_gives_phases_in_order(tmp_path):
    file = tmp_path / "recording.jsonl"
    writer = RecordingWriter(file, HEAD)
    events = [
        Add(2.5, "a-0", 5, 1),
        Schedule(3.0, 3.1, (Row("a-0", 0, 5, 0),), (), 0, SETTINGS["num_gpu_blocks"] - 2),
        Update(3.2, 3.25, 0),
    ]
    item = WorkloadRequest("a-0", 0.0, 5, 1, prompt_token_ids=(5, 6, 7, 8, 9))
    answers = [Answer("a-0", 2.0, [3.5])]
    writer.add(SeenPhase("a", digest([item]), answers, events, [6e-4], 0.25, 1.5))
    ends = []
    session = RecordedSession(file)
    served = session.serve([item], "a", lambda: ends.append(1))
    assert ends == [1]
    assert served.phase.difference is None
    assert [(s.seconds, s.pace) for s in served.phase.steps] == [(pytest.approx(0.25), 6e-4)]
    assert (served.others, served.seconds) == (0.25, 1.5)
    assert session.events == events


@pytest.mark.parametrize(
    ("item", "source"),
    [
        (WorkloadRequest("a-0", 0.0, 5, 1, prompt_token_ids=(5, 6, 7, 8, 1)), "a"),
        (WorkloadRequest("a-0", 0.0, 5, 2, prompt_token_ids=(5, 6, 7, 8, 9)), "a"),
        (WorkloadRequest("a-0", 0.0, 5, 1, prompt_token_ids=(5, 6, 7, 8, 9)), "b"),
    ],
)
def test_other_requests_of_the_same_name_are_seen(tmp_path, item, source):
    file = tmp_path / "recording.jsonl"
    prompts = digest([WorkloadRequest("a-0", 0.0, 5, 1, prompt_token_ids=(5, 6, 7, 8, 9))])
    events = [Add(2.5, "a-0", 5, 1)]
    answers = [Answer("a-0", 2.0, [3.5])]
    RecordingWriter(file, HEAD).add(SeenPhase("a", prompts, answers, events, [], None, 1.5))
    with pytest.raises(ServerError, match="or others with their names: this version plans"):
        RecordedSession(file).serve([item], source)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b"\x89PNG\r\n\x1a\n\xff"),
        ("a.jsonl.xz", b"no archive at all"),
        ("a.jsonl.xz", lzma.compress(b'{"format": 1}' * 999)[:60]),
        ("a.jsonl", b""),
        ("a.jsonl", b'{"format":1}'),
        ("a.jsonl", b'{"format":1,"words":null,"told":{"a":1},"machine":{},"salt":0}'),
    ],
)
def test_what_is_no_recording(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=r"is no recording"):
        read_head(tmp_path / name)


@pytest.mark.parametrize("change", [{"paces": None}, {"events": [["swim", 1]]}, {"seconds": "x"}])
def test_a_damaged_phase(tmp_path, change):
    file = tmp_path / "recording.jsonl"
    RecordingWriter(file, HEAD).add(PHASE)
    head, phase = file.read_text().splitlines()
    file.write_text(f"{head}\n{json.dumps(json.loads(phase) | change)}\n")
    with pytest.raises(ConfigError, match="cut off or damaged"):
        read_recording(file)


def test_settings_of_another_version(tmp_path):
    file = tmp_path / "recording.jsonl"
    RecordingWriter(file, Head((), {"max_num_seqs": 4}))
    with pytest.raises(ConfigError, match="its server's settings lack 'max_num_batched"):
        RecordedSession(file)


@pytest.mark.parametrize("change", [{"format": 0}, {"colour": "red"}])
def test_a_head_of_something_else(tmp_path, change):
    file = tmp_path / "recording.jsonl"
    RecordingWriter(file, HEAD)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConfigError, match="is no recording of a validation of format 1"):
        read_head(file)
