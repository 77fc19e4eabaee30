"""The benchmark's bookkeeping: results are kept, half lines dropped, failures told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels.bench import Results, check_ops, time_ops
from kernels.measure import Ceilings
from kernels.op import Case, Op

CPU = torch.device("cpu")
CEILINGS = Ceilings(1e12, 1e14)


def broken(x: torch.Tensor) -> torch.Tensor:
    raise ValueError("cannot run\nhere")


OP = Op(
    name="double",
    family="moe",
    run=lambda x: 2 * x,
    reference=lambda x: 2 * x.double(),
    make_inputs=lambda case, device, generator: {"x": torch.ones(4, device=device)},
    num_bytes=lambda inputs: 32,
    cases=(Case("toy", torch.float32),),
    bench_cases=(Case("large", torch.float32),),
    tolerance={torch.float32: 0.0},
    peers={"broken": broken, "torch": lambda x: x + x},
)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_results_outlive_their_process_and_half_a_line_does_not(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    results = Results(path)
    results.append({"kind": "time", "op": "a", "case": "b", "who": "c", "us": 1.0})
    with path.open("a") as file:
        file.write('{"kind": "ti')
    again = Results(path)
    assert again.has(kind="time", op="a", case="b", who="c")
    assert not again.has(kind="time", op="a", case="b", who="d")
    again.append({"kind": "time", "op": "a", "case": "b", "who": "d"})
    assert [row["who"] for row in rows_of(path)] == ["c", "d"]


def test_a_peer_that_cannot_run_is_told_and_passed_over(tmp_path: Path) -> None:
    results = Results(tmp_path / "r.jsonl")
    assert time_ops((OP,), CPU, CEILINGS, results, is_dry_run=False)
    found = {row["who"]: row for row in rows_of(tmp_path / "r.jsonl")}
    assert set(found) == {"ours", "broken", "torch"}
    assert found["ours"]["case"] == "large-float32"
    assert found["ours"]["share_of_copy"] > 0
    assert found["broken"]["why"] == "ValueError: cannot run"


def test_ours_failing_fails_the_run(tmp_path: Path) -> None:
    ours = replace(OP, run=broken)
    assert not time_ops((ours,), CPU, CEILINGS, Results(tmp_path / "r.jsonl"), is_dry_run=True)
    wrong = replace(OP, run=lambda x: 3 * x)
    assert not check_ops((wrong,), CPU, Results(tmp_path / "c.jsonl"))
    (row,) = rows_of(tmp_path / "c.jsonl")
    assert not row["ok"]
    assert "error" in row["why"]


@pytest.mark.parametrize("is_dry_run", [True, False])
def test_what_is_measured_is_not_measured_again(tmp_path: Path, is_dry_run: bool) -> None:
    path = tmp_path / "r.jsonl"
    for _ in range(2):
        time_ops((OP,), CPU, CEILINGS, Results(path), is_dry_run)
        check_ops((OP,), CPU, Results(path))
    assert len(rows_of(path)) == (2 if is_dry_run else 4)


def test_what_failed_of_ours_is_tried_again_and_a_peer_is_not(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    ours = replace(OP, run=broken)
    assert not time_ops((ours,), CPU, CEILINGS, Results(path), is_dry_run=False)
    assert time_ops((OP,), CPU, CEILINGS, Results(path), is_dry_run=False)
    whos = [row["who"] for row in rows_of(path)]
    assert whos == ["ours", "broken", "torch", "ours"]
