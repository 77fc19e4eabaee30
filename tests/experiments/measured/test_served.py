"""Which requests of a measured run are sent to the simulation, and with which lengths."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.measured.run_files import MeasuredRun, read_measured
from experiments.measured.workload import workload_of
from workbench.errors import ConfigError
from workbench.workload.base import ListWorkload, WorkloadRequest

Rows = list[dict[str, Any]]


def sent() -> Rows:
    rows = []
    for i in range(4):
        prompt, answer = 40 + 16 * i, 50 + i
        ids = [100 * i + n for n in range((prompt + answer) // 16)]
        rows.append({
            "input_toks": prompt, "output_toks": answer, "arrival_time_ns": 10**8 * i,
            "prompt_block_ids16": ids[: prompt // 16], "full_block_ids16": ids,
        })  # fmt: skip
    return rows


def measured(name: str = "bench-{}") -> Rows:
    return [
        {"request_id": name.format(i), "input_toks": row["input_toks"],
         "output_toks": row["output_toks"], "queued_ts": 500.0 + i, "scheduled_ts": 500.1 + i,
         "first_token_ts": 500.2 + i, "last_token_ts": 501.0 + i}
        for i, row in enumerate(sent())
    ]  # fmt: skip


def read(folder: Path, rows: Rows, lines: Rows, **meta: Any) -> tuple[MeasuredRun, ListWorkload]:
    (folder / "meta.json").write_text(json.dumps(meta))
    for name, content in (("requests.jsonl", rows), ("sent.jsonl", lines)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    run = read_measured(folder)
    return run, workload_of(run, folder / "sent.jsonl")


def lengths(workload: ListWorkload) -> list[tuple[str, int, int]]:
    made: list[WorkloadRequest] = list(workload.initial())
    return [(r.request_id, r.num_prompt_tokens, r.num_output_tokens) for r in made]


@pytest.mark.parametrize("name", ["bench-{}", "{}-abc", "cmpl-7{}", "x"])
def test_names_say_the_line_or_the_place_does(tmp_path: Path, name: str) -> None:
    """Also numbers from another count, and hashes that end with digits."""
    rows = measured(name)
    for place, row in enumerate(rows):
        row["request_id"] += "" if name != "x" else "abcd"[place]
    expected = [(r["request_id"], r["input_toks"], r["output_toks"]) for r in rows]
    assert lengths(read(tmp_path, rows, sent())[1]) == expected


def test_names_go_before_the_place(tmp_path: Path) -> None:
    run, workload = read(tmp_path, measured()[::-1], sent())
    assert [name for name, _, _ in lengths(workload)] == [f"bench-{i}" for i in range(4)]
    assert run.num_failed == 0


@pytest.mark.parametrize("name", ["bench-{}", "{}-abc"])
def test_a_request_without_an_answer_is_not_sent(tmp_path: Path, name: str) -> None:
    rows = measured(name)
    rows[1] |= {"output_toks": 0, "queued_ts": 0.0, "scheduled_ts": None, "first_token_ts": 0.0}
    run, workload = read(tmp_path, rows, sent())
    assert (run.num_failed, len(run.requests)) == (1, 3)
    assert [n for _, n, _ in lengths(workload)] == [40, 72, 88]


def test_a_time_of_zero_never_came(tmp_path: Path) -> None:
    rows = measured()
    rows[2] |= {"first_token_ts": 0.0, "last_token_ts": 0.0}
    run, _ = read(tmp_path, rows, sent())
    assert run.requests["first_token_s"].isna().tolist() == [False, False, True, False]


def test_an_answer_that_ended_early_is_as_long_as_it_was(tmp_path: Path) -> None:
    rows = measured()
    rows[3]["output_toks"] = 9  # with 88 of the prompt: six blocks, five of them the prompt's
    made = list(read(tmp_path, rows, sent())[1].initial())
    assert (made[3].num_output_tokens, made[3].output_hash_ids) == (9, (305,))
    assert len(made[2].output_hash_ids or ()) == 3


def test_the_first_requests_of_a_longer_file(tmp_path: Path) -> None:
    assert len(lengths(read(tmp_path, measured()[:3], sent(), num_requests=3)[1])) == 3
    with pytest.raises(ConfigError, match="holds 4 requests and the measured run 3 others"):
        read(tmp_path, measured()[:3], sent())


def test_other_requests_are_refused(tmp_path: Path) -> None:
    other = measured()
    other[0]["input_toks"] += 1
    with pytest.raises(ConfigError, match=r"prompt_tokens=41.*says 40"):
        read(tmp_path, other, sent())
    longer = measured()
    longer[0]["output_toks"] += 1
    with pytest.raises(ConfigError, match=r"output_tokens=51.*says 50"):
        read(tmp_path, longer, sent())
    nobody = [row | {"output_toks": 0} for row in measured()]
    with pytest.raises(ConfigError, match="no request with an answer"):
        read(tmp_path, nobody, sent())
