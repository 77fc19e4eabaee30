"""The file of a recorded run: what comes back from it, and what is refused as none."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.core_recorder import RecordedCore
from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import EngineCore
from workbench.errors import ConfigError
from workbench.kv_cache.block_hash import PrivateBlockHashes, TokenBlockHashes
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.recording import (
    SAME,
    AbortEvent,
    EndEvent,
    RecordedSettings,
    Recording,
    RecordingWriter,
    RequestEvent,
    ScheduleEvent,
    UpdateEvent,
    read_recording,
)
from workbench.request import Request
from workbench.sampling_params import RequestOutputKind, SamplingParams
from workbench.scheduler.scheduler import Scheduler

SETTINGS = RecordedSettings(
    scheduler=SchedulerConfig(max_model_len=32, max_num_batched_tokens=40, max_num_seqs=4),
    cache=CacheConfig(block_size=4),
    num_blocks=20,
    policies={"queue": {"_target_": "workbench.scheduler.request_queue.FCFSQueue"}},
)
PARAMS = SamplingParams(
    temperature=0.3,
    max_tokens=3,
    logit_bias={7: -1.5},
    bad_words_token_ids=((1, 2), (3,)),
    stop_token_ids=(9,),
    output_kind=RequestOutputKind.DELTA,
)


class Echo:
    """A model that answers every row with one token, and the first step with a multiple of it."""

    def __init__(self) -> None:
        self._step = SchedulerOutput(0)

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        self._step = scheduler_output

    def sample_tokens(self, grammar_output: Any) -> ModelRunnerOutput:
        rows = [[5] for _ in self._step.num_scheduled_tokens]
        return ModelRunnerOutput(rows, {"a": [1, 2]}, {})


def request(request_id: str = "a", **fields: Any) -> Request:
    prompt = np.arange(6).tolist()
    made = Request(
        request_id,
        6,
        3,
        0.1 + 0.2,
        prompt_token_ids=prompt,
        sampling_params=PARAMS,
        stop_token_ids=frozenset(PARAMS.stop_token_ids),
        priority=2,
        client_id="c",
        session_id="s",
        deadline=1.5,
        predicted_output_tokens=4,
        **fields,
    )
    made.block_hashes = TokenBlockHashes(prompt, made.output_token_ids, 4)
    return made


def recorded() -> bytes:
    """One request that runs to its end, one that is aborted, and one that could never run."""
    time = iter(range(1, 1000))
    scheduler = Scheduler(SETTINGS.scheduler, SETTINGS.cache, SETTINGS.num_blocks)
    core = EngineCore(scheduler, Echo(), lambda: next(time) / 10)
    recorder = RecordedCore(core, RecordingWriter(SETTINGS))
    assert recorder.add_request(request("a"))
    assert recorder.add_request(request("b"))
    assert not recorder.add_request(Request("huge", 99, 3, prompt_token_ids=[1] * 99))
    assert [each.request_id for each in recorder.abort_requests(iter(["b", "nobody"]))] == ["b"]
    while recorder.has_work:
        step = recorder.step()
        with pytest.raises(StopIteration):
            step.send(next(step))
    return recorder.close()


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    path = tmp_path / "recording.jsonl.gz"
    path.write_bytes(recorded())
    return read_recording(path)


def test_settings_and_events_come_back_in_order(recording: Recording) -> None:
    assert recording.settings == SETTINGS
    kinds = [type(event) for event in recording.events]
    assert kinds[:4] == [RequestEvent, RequestEvent, RequestEvent, AbortEvent]
    # three tokens, and a step that reports the end of the last request
    assert kinds[4:] == [ScheduleEvent, UpdateEvent] * 4 + [EndEvent]
    times = [event.now for event in recording.events]
    assert times == sorted(times)
    aborted, end = recording.events[3], recording.events[-1]
    assert isinstance(aborted, AbortEvent)
    assert list(aborted.request_ids) == ["b", "nobody"]
    assert isinstance(end, EndEvent)
    assert not end.has_work


def test_a_request_comes_back_as_it_came(recording: Recording) -> None:
    events = [event for event in recording.events if isinstance(event, RequestEvent)]
    assert [event.is_taken for event in events] == [True, True, False]
    wanted, got = request(), events[0].request(SETTINGS.cache)
    own = {"block_hashes", "output_token_ids"}
    for name in set(Request.__slots__) - own:
        assert getattr(got, name) == getattr(wanted, name), name
    assert got.sampling_params == PARAMS
    assert wanted.block_hashes is not None
    assert got.block_hashes is not None
    assert got.block_hashes.prompt() == wanted.block_hashes.prompt()
    got.output_token_ids += [3, 4]
    wanted.output_token_ids += [3, 4]
    assert got.block_hashes.at(1) == wanted.block_hashes.at(1), "keys of the answer's blocks"


def test_a_plain_request_needs_neither_tokens_nor_keys(tmp_path: Path) -> None:
    writer = RecordingWriter(SETTINGS)
    writer.request(0.0, Request("bare", 5, 2), is_taken=True)
    path = tmp_path / "recording.jsonl.gz"
    path.write_bytes(writer.close(1.0, has_work=True))
    event = read_recording(path).events[0]
    assert isinstance(event, RequestEvent)
    bare = event.request(SETTINGS.cache)
    assert (bare.num_prompt_tokens, bare.max_tokens) == (5, 2)
    assert bare.prompt_token_ids is bare.sampling_params is bare.block_hashes is None


def test_keys_that_do_not_follow_from_tokens_are_refused() -> None:
    other = Request("r", 5, 2, block_hashes=PrivateBlockHashes(0))
    with pytest.raises(ConfigError, match="keys its blocks by PrivateBlockHashes"):
        RecordingWriter(SETTINGS).request(0.0, other, is_taken=True)


def test_results_come_back(recording: Recording) -> None:
    updates = [event for event in recording.events if isinstance(event, UpdateEvent)]
    assert [event.step for event in updates] == [0, 1, 2, 3]
    first = updates[0].model_output()
    assert (first.sampled_token_ids, first.draft_token_ids) == ([[5]], {"a": [1, 2]})
    assert updates[2].values["finished"] == {"a": "length"}


def test_rows_of_no_one_token_come_back(tmp_path: Path) -> None:
    from workbench.recording import answer_values

    output = ModelRunnerOutput([[], [1], [2, 3]], {}, {"x": "not a number"})
    writer = RecordingWriter(SETTINGS)
    writer.update(0.5, answer_values(0, output), {})
    writer.update(0.6, answer_values(1, ModelRunnerOutput()), {})
    path = tmp_path / "recording.jsonl.gz"
    path.write_bytes(writer.close(1.0, has_work=True))
    one, other, _ = read_recording(path).events
    assert isinstance(one, UpdateEvent)
    assert isinstance(other, UpdateEvent)
    assert one.model_output() == output
    assert other.model_output().sampled_token_ids is None


def test_steps_are_written_whole_and_equal_rows_once(recording: Recording) -> None:
    steps = [event for event in recording.events if isinstance(event, ScheduleEvent)]
    decisions = [json.loads(event.line)["decisions"] for event in steps]
    assert all(set(made) == set(SchedulerOutput(0).as_dict()) for made in decisions)
    assert [made["num_scheduled_tokens"] for made in decisions] == [{"a": 6}, {"a": 1}, SAME, {}]
    assert decisions[0]["scheduled_new_reqs"][0]["sampling_params"]["logit_bias"] == {"7": -1.5}
    assert [event.uses_device for event in steps] == [True, True, True, False]


def damaged(data: bytes, line: int, text: str) -> bytes:
    lines = gzip.decompress(data).decode().splitlines()
    lines[line] = text
    return gzip.compress("\n".join(lines).encode())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:100], "is cut off in its first line"),
        (lambda data: b"no gzip", "is no recording"),
        (lambda data: damaged(data, 0, '{"format":"other/7"}'), "has the format 'other/7'"),
        (lambda data: damaged(data, 0, '{"format":"workbench-recording/1"}'), "is no recording"),
        (lambda data: damaged(data, 3, "{}"), "is no recording"),
        (lambda data: damaged(data, 3, '{"event":"magic","now":1}'), "no event 'magic'"),
        (
            lambda data: gzip.compress(gzip.decompress(data).replace(b'"step":0', b'"step":1')),
            "begin with the first step",
        ),
    ],
    ids=["half", "other-file", "format", "header", "event", "kind", "late"],
)
def test_a_file_that_is_none_is_refused_in_one_line(
    damage: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "recording.jsonl.gz"
    path.write_bytes(damage(recorded()))
    with pytest.raises(ConfigError, match=message) as refused:
        read_recording(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_of_a_file_that_is_cut_off_the_whole_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl.gz"
    with path.open("xb", buffering=0) as file:
        writer = RecordingWriter(SETTINGS, file)
        assert read_recording(path) == Recording(SETTINGS, [])
        # a second of events is written at once, and what comes in between when it is asked for
        for i in range(200):
            writer.abort(i / 10, [f"r{i}"])
        assert len(read_recording(path).events) == 191
        writer.flush()
        assert len(read_recording(path).events) == 200
        assert not read_recording(path).is_whole
        assert writer.close(20.0, has_work=False) == b""
    whole, data = read_recording(path), path.read_bytes()
    assert whole.is_whole
    assert len(whole.events) == 201
    numbers = []
    for size in range(len(data) // 2, len(data), 9):
        for rest in (b"", bytes(512)):
            # after a crash of the system, the end of a file may be zeros
            path.write_bytes(data[:size] + rest)
            found = read_recording(path)
            assert found.settings == SETTINGS
            assert found.events == whole.events[: len(found.events)]
        numbers.append(len(found.events))
    assert numbers == sorted(numbers)
    assert 50 < numbers[0] < numbers[-1]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist: record a run first"):
        read_recording(tmp_path / "nowhere.gz")
