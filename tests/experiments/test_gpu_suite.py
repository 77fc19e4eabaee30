"""The GPU suite: every part runs dry, goes on where it was killed, and its report reads results."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.gpu_suite.__main__ import main
from experiments.gpu_suite.goals import (
    GOALS,
    MISSED,
    NOT_MEASURED,
    STEP_CASES,
    Goal,
    Measurements,
)
from experiments.gpu_suite.parts import KERNELS, Part, parts, select
from experiments.gpu_suite.report import write_report
from experiments.gpu_suite.suite import CUT_OFF, DONE, FAILED, Suite

# parts that differ from a part that is run in nothing but the model
LIKE_OTHERS = {
    "throughput_qwen3_0_6b": "throughput_llama3_8b",
    "throughput_transformers_llama3_8b": "throughput_transformers_qwen3_0_6b",
}


def _names(out: Path) -> list[str]:
    return [part.name for part in parts(out, True) if part.name not in LIKE_OTHERS]


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("suite")
    status = main(["--out", str(out), "--dry-run", "--only", *_names(out)])
    logs = "\n".join(f.read_text()[-2000:] for f in sorted((out / "logs").iterdir()))
    assert status == 0, logs
    return out


def test_parts_of_another_model_are_the_same_otherwise(tmp_path: Path) -> None:
    known = {part.name: part for part in parts(tmp_path, True)}
    for name, like in LIKE_OTHERS.items():
        apart = {
            (one, other)
            for one, other in zip(known[name].command, known[like].command, strict=True)
            if one != other
        }
        (models,) = apart
        assert {Path(model).name for model in models} == {"qwen3_0_6b", "llama3_8b"}


def test_every_part_runs_dry_and_leaves_its_results(dry_run: Path) -> None:
    state = json.loads((dry_run / "state.json").read_text())
    assert list(state) == _names(dry_run)
    for name in ("device.json", KERNELS, "step_times.jsonl", "throughput.jsonl", "step_table.csv"):
        assert (dry_run / name).stat().st_size > 0
    rows = [json.loads(line) for line in (dry_run / KERNELS).read_text().splitlines()]
    assert {row["kind"] for row in rows} == {"check", "time"}
    assert {row["op"].partition(".")[0] for row in rows} >= {"attention", "kv_cache", "sampling"}
    who = {json.loads(line)["who"] for line in (dry_run / "throughput.jsonl").open()}
    assert who == {"workbench", "transformers"}


def test_the_report_of_a_dry_run_claims_no_goal(dry_run: Path) -> None:
    text = (dry_run / "REPORT.md").read_text()
    goals = text.partition("## Goals")[2].partition("## ")[0]
    lines = [line for line in goals.splitlines() if line.startswith("|")][2:]
    assert len(lines) == len(GOALS)
    assert sum(NOT_MEASURED in line for line in lines) == len(GOALS)
    assert "Nothing." in text.partition("## What failed")[2]


def test_what_is_done_is_not_run_again(dry_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (dry_run / KERNELS).read_text()
    assert main(["--out", str(dry_run), "--dry-run", "--only", "kernel_", "device"]) == 0
    assert capsys.readouterr().out.count("done before") == 6
    assert (dry_run / KERNELS).read_text() == before


def test_a_suite_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.gpu_suite", "--out", str(tmp_path)]
    command += ["--dry-run", "--only", "kernel_time_moe"]
    suite = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    results = tmp_path / KERNELS
    _wait_for(lambda: results.exists() and b"\n" in results.read_bytes(), suite)
    suite.kill()
    suite.wait()
    kept = results.read_text().splitlines()[0]
    with results.open("a") as file:
        file.write('{"kind": "time", "op": "half a li')
    assert json.loads((tmp_path / "state.json").read_text())["kernel_time_moe"]["status"] != DONE
    assert main(command[3:]) == 0
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert results.read_text().startswith(kept)
    names = [(row["op"], row["case"], row["who"]) for row in rows]
    assert len(names) == len(set(names))


def _wait_for(is_there: Any, process: "subprocess.Popen[bytes]") -> None:
    while not is_there() and process.poll() is None:
        time.sleep(0.02)


def test_parts_are_chosen_by_name_or_prefix(tmp_path: Path) -> None:
    everything = parts(tmp_path, True)
    assert select(everything, []) == everything
    chosen = select(everything, ["throughput_qwen", "device"])
    assert [part.name for part in chosen] == ["device", "throughput_qwen3_0_6b"]
    with pytest.raises(ValueError, match="--only speed: no such part; choose among device"):
        select(everything, ["speed"])
    assert all(part.limit_s <= 480 for part in everything)


def test_an_unknown_part_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--out", str(tmp_path / "out"), "--only", "speed"])
    assert caught.value.code == 2
    assert "no such part" in capsys.readouterr().err


def test_a_part_that_fails_or_hangs_takes_no_other_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def part(name: str, program: str, limit_s: float = 60.0) -> Part:
        return Part(name, (sys.executable, "-c", program), limit_s)

    chosen = [
        part("bad", "raise SystemExit('it broke')"),
        part("hangs", "import time; time.sleep(1000)", 0.5),
        part("good", "print('fine')"),
    ]
    assert not Suite(tmp_path, True).run(chosen)
    state = json.loads((tmp_path / "state.json").read_text())
    assert [state[p.name]["status"] for p in chosen] == [FAILED, CUT_OFF, DONE]
    assert "it broke" in capsys.readouterr().out
    text = write_report(tmp_path)
    assert "- bad: failed" in text
    assert "- hangs: cut off" in text
    assert text == (tmp_path / "REPORT.md").read_text().rstrip("\n")


@pytest.mark.parametrize(
    ("value", "is_less_better", "verdict"),
    [
        (None, False, NOT_MEASURED),
        (0.5, False, MISSED),
        (1.0, False, "must met"),
        (2.5, False, "good met"),
        (3.0, False, "stretch met"),
        (4.0, True, MISSED),
        (3.0, True, "must met"),
        (0.5, True, "stretch met"),
    ],
)
def test_a_verdict_is_the_highest_level_met(
    value: float | None, is_less_better: bool, verdict: str
) -> None:
    levels = (3.0, 2.0, 1.0) if is_less_better else (1.0, 2.0, 3.0)
    goal = Goal("item", lambda results: value, levels, "us", is_less_better)
    assert goal.verdict(goal.measure(Measurements([], []))) == verdict


def test_every_goal_is_answered_by_cases_that_are_measured() -> None:
    from kernels.registry import ops

    rows: list[dict[str, Any]] = []
    for op in ops():
        for case in op.bench_cases:
            for who in ("ours", *op.peers):
                row = {"kind": "time", "op": str(op), "case": str(case), "who": who, "us": 10.0}
                rows.append(row | {"share_of_copy": 0.8, "tflops": 400.0})
    step = {"replay_over_kernels": 1.04, "host_gap_us": 20.0, "over_floor": 1.3}
    results = Measurements(rows, [step | {"case": case} for case in STEP_CASES])
    answers = {goal.item: goal.measure(results) for goal in GOALS}
    assert None not in answers.values(), answers
    assert answers["price of page 16 against contiguous"] == 0.0
    assert answers["mixed: a 2k chunk and 64 decodes, over the sum of the parts"] == 0.5
    assert answers["full decode step over its byte floor"] == 1.3


@pytest.mark.parametrize(
    "change", [{"case": "3x16"}, {"shares_blocks": True}, {"over_floor": None}]
)
def test_a_goal_of_steps_needs_every_case(change: dict[str, Any]) -> None:
    rows = [{"case": case, "over_floor": 1.1} for case in STEP_CASES]
    goal = next(g for g in GOALS if g.item == "full decode step over its byte floor")
    assert goal.measure(Measurements([], rows)) == 1.1
    assert goal.measure(Measurements([], [*rows[:-1], rows[-1] | change])) is None


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_toy_sizes_and_real_ones_do_not_share_a_folder(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"device": {"status": DONE, "seconds": 1.0, "is_dry_run": not arguments}}
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), *arguments])
    assert "choose another folder" in capsys.readouterr().err


def test_the_report_sets_peers_beside_and_names_what_failed(tmp_path: Path) -> None:
    ours = {
        "kind": "time", "op": "moe.route", "case": "c", "who": "ours", "us": 10.0, "is_graph": True,
        "gb_per_s": 1500.0, "share_of_copy": 0.5, "tflops": 0.0, "flops": 0,
        "share_of_roofline": 0.5,
    }  # fmt: skip
    peer = ours | {"who": "torch", "us": 25.0}
    lost = {"kind": "time", "op": "moe.route", "case": "c", "who": "flex", "why": "Error: not here"}
    (tmp_path / KERNELS).write_text("".join(json.dumps(r) + "\n" for r in (ours, peer, lost)))
    text = write_report(tmp_path)
    assert "| moe.route | c | 10.0 | 1,500 | 50 % | - | 50 % | torch 25.0 (2.50x); " in text
    assert "flex: none (Error)" in text
    assert "- time moe.route c flex: Error: not here" in text
