"""Replays of recorded decisions: all recordings at level 3, and the command that compares them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.conformance import level_reached, main
from experiments.scenario import FORMAT

RECORDINGS = Path(__file__).resolve().parents[1] / "conformance"
FILES = sorted(RECORDINGS.glob("*.json"))
SMALL = RECORDINGS / "blocks_s003.json"


def test_there_are_recordings_of_every_feature() -> None:
    scenarios = [json.loads(path.read_text()) for path in FILES]
    assert len(scenarios) >= 40
    configs = [s["config"] for s in scenarios]
    features = {
        "asynchronous": lambda c: c["pipeline_depth"] == 2,
        "speculation": lambda c: c["spec_tokens"] > 0,
        "prefix caching": lambda c: c["prefix_caching"],
        "no prefix caching": lambda c: not c["prefix_caching"],
        "sliding window": lambda c: c["sliding_window"],
        "hybrid": lambda c: c["hybrid_window"],
        "priority": lambda c: c["policy"] == "priority",
        "watermark": lambda c: c["watermark_blocks"] > 0,
        "interval": lambda c: c["prefill_schedule_interval"] > 1,
        "threshold": lambda c: c["long_prefill_token_threshold"] > 0,
        "no chunks": lambda c: not c["chunked_prefill"],
        "active limit": lambda c: c["max_num_active_seqs"] is not None,
        "first chunk fits": lambda c: not c["admission_requires_full_prompt_fit"],
    }
    for name, has in features.items():
        assert any(has(c) for c in configs), name
    assert any(s["aborts"] for s in scenarios)
    assert sum(s["summary"]["preemptions"] for s in scenarios) > 50
    assert {s["recorded_from"]["version"] for s in scenarios} == {"0.33.0"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_our_recordings_reach_level_3(path: Path) -> None:
    assert level_reached(path) == (3, None)


def test_the_shared_recordings_reach_level_3(shared_dir: Path) -> None:
    files = sorted((shared_dir / "conformance").glob("*.json"))
    assert files
    for path in files:
        assert level_reached(path) == (3, None), path.name


def altered(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    scenario = json.loads(SMALL.read_text())
    change(scenario)
    path = tmp_path / "altered.json"
    path.write_text(json.dumps(scenario))
    return path


def change_scheduled(scenario: dict[str, Any]) -> None:
    scenario["steps"][1]["scheduled"][0][1] += 1


def change_free_blocks(scenario: dict[str, Any]) -> None:
    scenario["steps"][2]["free_blocks_end"] -= 1


def change_blocks(scenario: dict[str, Any]) -> None:
    tables = scenario["steps"][0]["detail_block_tables_changed"]
    next(iter(tables.values()))[0][0] += 1


def change_end(scenario: dict[str, Any]) -> None:
    step = next(step for step in scenario["steps"] if step.get("finished"))
    step["finished"][0][1] = "abort"


def change_config(scenario: dict[str, Any]) -> None:
    scenario["config"]["max_num_batched_tokens"] = 8
    scenario["config"]["max_num_seqs"] = 8


@pytest.mark.parametrize(
    ("change", "level", "step", "field"),
    [
        (change_scheduled, 0, 1, "scheduled"),
        (change_free_blocks, 1, 2, "free_blocks_end"),
        (change_blocks, 2, 0, "detail_block_tables_changed"),
        (change_end, 0, None, "finished"),
        (change_config, 0, 0, "scheduled"),
    ],
)
def test_the_first_difference_is_named(
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    level: int,
    step: int | None,
    field: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = altered(tmp_path, change)
    reached, difference = level_reached(path)
    assert reached == level
    assert difference is not None
    assert difference.field == field
    assert difference.level == level + 1
    assert step is None or difference.step == step
    for asked in (1, 2, 3):
        assert main([str(path), "--level", str(asked)]) == int(asked > level)
        out, err = capsys.readouterr()
        line, total = out.splitlines()
        assert line.startswith(f"altered.json: level {level}; step {difference.step} {field}: ")
        assert f"expected {difference.expected}, got {difference.got}" in line
        assert total == f"{int(asked <= level)} of 1 at level {asked} or above"
        assert err == ""


def test_a_missing_step_field_is_a_difference(tmp_path: Path) -> None:
    def drop(scenario: dict[str, Any]) -> None:
        del scenario["steps"][0]["running"]

    reached, difference = level_reached(altered(tmp_path, drop))
    assert reached == 1
    assert difference is not None
    assert (difference.step, difference.field) == (0, "running")


def test_a_folder_is_replayed_file_by_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good.json"
    good.write_text(SMALL.read_text())
    assert main([str(tmp_path)]) == 0
    altered(tmp_path, change_scheduled)
    assert main([str(tmp_path), str(good)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["good.json: level 3", "1 of 1 at level 2 or above"]
    assert lines[2].startswith("altered.json: level 0; step 1 scheduled: expected [[")
    assert lines[3:] == ["good.json: level 3"] * 2 + ["2 of 3 at level 2 or above"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not a readable JSON file"),
        (b"\xff\xfe\x00", "not a readable JSON file"),
        (b"[]", FORMAT),
        (b'{"format": "sched-oracle/2"}', FORMAT),
        (None, "not a readable JSON file"),
    ],
    ids=["broken", "binary", "list", "other_format", "absent"],
)
def test_what_cannot_be_read_falls_short_in_one_line(
    tmp_path: Path, content: bytes | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = tmp_path / "bad.json", tmp_path / "good.json"
    if content is not None:
        bad.write_bytes(content)
    good.write_text(SMALL.read_text())
    assert main([str(bad), str(good)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("bad.json: error: ")
    assert words in lines[0]
    assert lines[1:] == ["good.json: level 3", "1 of 2 at level 2 or above"]


@pytest.mark.parametrize("part", ["config", "requests", "aborts", "steps"])
def test_a_scenario_without_one_of_its_parts_is_an_error_in_one_line(
    tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = altered(tmp_path, lambda scenario: scenario.pop(part))
    assert main([str(path)]) == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("altered.json: error: ")
    assert part in line


def test_settings_that_the_scheduler_refuses_are_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(scenario: dict[str, Any]) -> None:
        scenario["config"]["max_num_seqs"] = 0

    assert main([str(altered(tmp_path, change))]) == 1
    assert "error: max_num_seqs=0 must be at least 1" in capsys.readouterr().out


def cut(scenario: dict[str, Any]) -> None:
    del scenario["steps"][1:]


def drop_last_step(scenario: dict[str, Any]) -> None:
    del scenario["steps"][-1]


def drop_all_steps(scenario: dict[str, Any]) -> None:
    scenario["steps"] = []


def drop_a_step(scenario: dict[str, Any]) -> None:
    del scenario["steps"][1]


def add_rule(scenario: dict[str, Any]) -> None:
    scenario["config"]["encoder_budget"] = 8


def change_watermark(scenario: dict[str, Any]) -> None:
    scenario["config"]["watermark_blocks"] += 1


def change_arrived(scenario: dict[str, Any]) -> None:
    scenario["steps"][0]["arrived"] = ["nobody"]


def change_aborted(scenario: dict[str, Any]) -> None:
    scenario["steps"][1]["aborted"] = ["r00"]


def double_id(scenario: dict[str, Any]) -> None:
    scenario["requests"].append(scenario["requests"][0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut, "stops with step 0, before"),
        (drop_last_step, "which is not empty"),
        (drop_all_steps, "steps is empty"),
        (drop_a_step, "step 2 stands where step 1 belongs"),
        (add_rule, "needs a rule that we do not know: config.encoder_budget=8"),
        (change_watermark, "watermark_blocks="),
        (change_arrived, "step 0 arrived: the step says ['nobody'], the input ["),
        (change_aborted, "step 1 aborted: the step says ['r00'], the input []"),
        (double_id, "two requests have the id"),
    ],
)
def test_a_recording_that_is_not_whole_is_refused_and_not_passed(
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(altered(tmp_path, change)), "--level", "1"]) == 1
    line, total = capsys.readouterr().out.splitlines()
    assert line.startswith("altered.json: error: ")
    assert words in line
    assert total == "0 of 1 at level 1 or above"


def test_folders_are_searched_to_the_bottom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (below / "good.json").write_text(SMALL.read_text())
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["a/b/good.json: level 3", "1 of 1 at level 2 or above"]


def test_nothing_to_replay_is_a_mistake_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert f"no *.json file in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], [str(SMALL), "--level", "4"], ["--levle", "2"]])
def test_a_misused_command_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err
