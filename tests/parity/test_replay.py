"""A replay notices what is not as recorded, names the first of it, and needs nothing else."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simulator.cluster import Policies
from simulator.recorded_world import Difference
from simulator.replay import Replay, ReplayResult
from tests.parity.script_worlds import policies_of, record
from tests.workbench.random_world import QUEUES, World
from workbench.kv_cache.eviction import LFUEviction
from workbench.recording import RecordedSettings, Recording, read_recording
from workbench.scheduler.batch_policy import PrefillFirstBatching
from workbench.scheduler.preemption import MostBlocks

NUM_REQUESTS = 12
LIMITS = {
    "max_num_seqs": 6,
    "max_num_batched_tokens": 60,
    "max_model_len": 60,
    "num_speculative_tokens": 0,
    "async_scheduling": False,
}


def crowded(depth: int = 1) -> World:
    """More requests than blocks, three beginnings, an abort."""
    return World(
        scheduler={**LIMITS, "async_scheduling": depth == 2},
        cache={"block_size": 4, "enable_prefix_caching": True},
        num_blocks=24,
        depth=depth,
        queue="fcfs",
        victim="last",
        batch_policy="unified",
        eviction="lru",
        requests=tuple(
            {
                "arrival_step": number // 2,
                "prompt": 14 + 5 * (number % 6),
                "output": 25 - number,
                "priority": 0,
                "client": "ab"[number % 3 == 0],
                "deadline": None,
                "group": number % 2,
                "shared": number % 5,
            }
            for number in range(NUM_REQUESTS)
        ),
        aborts=((9, 3),),
        acceptance_rate=0.0,
    )


@pytest.fixture(scope="module", params=[1, 2], ids=["sync", "async"])
def data(request: pytest.FixtureRequest) -> bytes:
    return record(crowded(request.param), seed=4)


def read(data: bytes, folder: Path) -> Recording:
    path = folder / "recording.jsonl.gz"
    path.write_bytes(data)
    return read_recording(path)


def replay(
    recording: Recording, policies: Policies | None = None, settings: RecordedSettings | None = None
) -> ReplayResult:
    return Replay(recording, policies or policies_of(crowded()), settings).run()


def test_the_world_is_crowded_and_its_replay_is_equal(data: bytes, tmp_path: Path) -> None:
    result = replay(read(data, tmp_path))
    assert result.difference is None
    assert result.counters["requests"] == NUM_REQUESTS
    assert result.counters["aborts"] == 1
    assert result.counters["preemptions"] > 3
    assert result.counters["prefix_hit_tokens"] > 20


def test_without_policies_it_is_vllm_that_decides(data: bytes, tmp_path: Path) -> None:
    assert Replay(read(data, tmp_path)).run().difference is None


def test_the_simulated_log_has_the_recorded_times(data: bytes, tmp_path: Path) -> None:
    recording = read(data, tmp_path)
    log = replay(recording).steps
    ends = {event.values["step"]: event.now for event in recording.events if _is(event, "update")}
    used = [event.step for event in recording.events if getattr(event, "uses_device", False)]
    assert len(log) == len(used)
    for start, seconds, step in zip(log.start_s, log.duration_s, used, strict=True):
        assert start + seconds == pytest.approx(ends[step], abs=1e-12)


def _is(event: Any, kind: str) -> bool:
    return getattr(event, "values", {}).get("event") == kind


@pytest.mark.parametrize(
    "policies",
    [
        {"queue": QUEUES["sjf"]},
        {"victim_policy": MostBlocks},
        {"batch_policy": PrefillFirstBatching},
        {"eviction": LFUEviction},
    ],
    ids=lambda policies: next(iter(policies)),
)
def test_another_policy_is_found_out(policies: dict[str, Any], data: bytes, tmp_path: Path) -> None:
    given = {name: getattr(policies_of(crowded()), name) for name in Policies.__slots__}
    check_stopped(replay(read(data, tmp_path), Policies(**given | policies)))


@pytest.mark.parametrize(
    "changes",
    [{"max_num_batched_tokens": 59}, {"max_num_seqs": 3}, {"long_prefill_token_threshold": 30}],
    ids=lambda changes: next(iter(changes)),
)
def test_another_setting_is_found_out(changes: dict[str, Any], data: bytes, tmp_path: Path) -> None:
    recording = read(data, tmp_path)
    scheduler = replace(recording.settings.scheduler, **changes)
    settings = replace(recording.settings, scheduler=scheduler)
    check_stopped(replay(recording, settings=settings))


def test_a_block_fewer_is_found_out(data: bytes, tmp_path: Path) -> None:
    recording = read(data, tmp_path)
    check_stopped(replay(recording, settings=replace(recording.settings, num_blocks=23)))


def check_stopped(result: ReplayResult) -> Difference:
    """The difference of a replay that went its own way."""
    found = result.difference
    assert found is not None
    assert json.dumps(found.expected) != json.dumps(found.got), "and its order"
    assert result.num_equal == found.step < result.num_recorded
    assert result.num_compared in (found.step, found.step + 1)
    return found


Change = Callable[[dict[str, Any]], None]


def forged(data: bytes, kind: str, place: int, change: Change) -> bytes:
    """The recording with one event changed: the one at `place` among those of its kind."""
    lines = [json.loads(line) for line in gzip.decompress(data).decode().splitlines()]
    change([line for line in lines if line.get("event") == kind][place])
    text = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    return gzip.compress(text.encode())


def decide(name: str, change: Callable[[Any], Any]) -> Change:
    def apply(line: dict[str, Any]) -> None:
        line["decisions"][name] = change(line["decisions"][name])

    return apply


def put(name: str, change: Callable[[Any], Any]) -> Change:
    def apply(line: dict[str, Any]) -> None:
        line[name] = change(line[name])

    return apply


@pytest.mark.parametrize(
    ("kind", "place", "change", "step", "field"),
    [
        ("schedule", 7, decide("num_running", lambda n: n + 1), 7, "num_running"),
        ("schedule", 0, decide("num_used_blocks", lambda n: n - 1), 0, "num_used_blocks"),
        (
            "schedule",
            2,
            decide("num_scheduled_tokens", lambda rows: dict(reversed(rows.items()))),
            2,
            "num_scheduled_tokens",
        ),
        ("schedule", 3, put("now", lambda now: 0.0), 3, "now of schedule"),
        ("update", 4, put("finished", lambda ends: {"4": "stop"}), 4, "finished"),
        ("request", 0, put("is_taken", lambda taken: False), 0, "is_taken of request '0'"),
    ],
    ids=["rows", "blocks", "order", "clock", "ends", "admission"],
)
def test_a_forged_line_is_found_out(
    kind: str, place: int, change: Change, step: int, field: str, data: bytes, tmp_path: Path
) -> None:
    found = replay(read(forged(data, kind, place, change), tmp_path)).difference
    assert found is not None
    assert (found.step, found.field) == (step, field)


def test_a_request_that_comes_a_step_later_is_found_out(data: bytes, tmp_path: Path) -> None:
    lines = gzip.decompress(data).decode().splitlines()
    place = next(i for i, line in enumerate(lines) if '"request_id":"4"' in line)
    after = next(i for i in range(place, len(lines)) if '"event":"schedule"' in lines[i])
    lines.insert(after, lines.pop(place))
    moved = json.loads(lines[after]) | {"now": json.loads(lines[after - 1])["now"]}
    lines[after] = json.dumps(moved, separators=(",", ":"))
    found = replay(read(gzip.compress("\n".join(lines).encode()), tmp_path)).difference
    assert found is not None
    assert found.field in ("num_scheduled_tokens", "num_waiting", "num_running")


def test_work_that_is_left_or_missing_is_found_out(data: bytes, tmp_path: Path) -> None:
    lines = gzip.decompress(data).decode().splitlines()
    without = [line for line in lines if '"request_id":"0"' not in line or "schedule" in line]
    found = replay(read(gzip.compress("\n".join(without).encode()), tmp_path)).difference
    assert found is not None
    early = forged(data, "end", 0, put("has_work", lambda has: True))
    found = replay(read(early, tmp_path)).difference
    assert found is not None
    assert (found.field, found.expected, found.got) == ("end", "work left", "nothing")


def test_a_recording_of_before_a_field_was_added_still_counts(data: bytes, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in gzip.decompress(data).decode().splitlines()]
    for line in lines:
        if line.get("event") == "schedule":
            del line["decisions"]["num_waiting"]
            del line["decisions"]["shape"]["num_samples"]
    text = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    assert replay(read(gzip.compress(text.encode()), tmp_path)).difference is None
