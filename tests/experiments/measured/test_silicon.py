"""Closed-loop operating points: what is read, what is simulated, what is left out."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.compare_silicon import main
from experiments.measured.closed_loop import simulate_point
from experiments.measured.points import read_points
from experiments.measured.settings import SiliconSettings
from workbench.errors import ConfigError

ROW = {
    "id": "a", "backend_version": "", "model_path": "meta-llama/Llama-3.1-8B",
    "system": "h100_sxm", "isl": 100, "osl": 20, "gemm_quant_mode": "", "tp_size": 1,
    "silicon_ttft_ms": 30.0, "silicon_tpot_ms": 9.0, "concurrency": 4,
}  # fmt: skip


LONG: dict[str, object] = {"isl": 2000, "osl": 200, "concurrency": 8}


def table(folder: Path, *changes: dict[str, object]) -> Path:
    file = folder / "points.csv"
    pd.DataFrame([ROW | change for change in changes]).to_csv(file, index=False)
    return file


def test_lengths_and_budget_follow_the_kind_of_benchmark(tmp_path: Path) -> None:
    drawn, exact = read_points(table(tmp_path, {}, {"backend_version": "0.12.0"}))
    assert (drawn.exact, drawn.token_budget) == (False, 8192)
    assert (exact.exact, exact.token_budget) == (True, 1604)
    lengths = [r.num_prompt_tokens for r in drawn.workload(10, 0).initial()]
    assert len(lengths) == 4
    columns = drawn.workload(10, 0)._columns
    assert len(columns) == 40
    assert columns.num_prompt_tokens.min() >= 80
    assert columns.num_prompt_tokens.max() <= 100
    assert len(np.unique(columns.num_output_tokens)) > 1
    assert set(exact.workload(10, 0)._columns.num_output_tokens) == {20}


def test_users_that_answer_alike_come_in_convoys(tmp_path: Path) -> None:
    drawn, exact = read_points(table(tmp_path, LONG, LONG | {"backend_version": "0.12.0"}))
    settings = SiliconSettings(points="", profiles_dir=str(tmp_path), jobs=1)
    first, second = simulate_point(drawn, settings), simulate_point(exact, settings)
    assert first.prices_from == "formulas"
    assert second.ttft_ms > 1.2 * first.ttft_ms


def test_points_are_compared_and_what_memory_forbids_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = table(tmp_path, {}, {"id": "too fast", "silicon_tpot_ms": 1.0})
    out = tmp_path / "out"
    assert (
        main([f"points={file}", f"profiles_dir={tmp_path}", "jobs=1", f"hydra.run.dir={out}"]) == 0
    )
    assert "left out of the means (faster than memory allows): too fast" in capsys.readouterr().out
    facts = json.loads((out / "errors.json").read_text())
    assert (facts["num_points"], facts["num_points_counted"]) == (2, 1)
    assert facts["ttft_mape"] == pytest.approx(abs(facts["points"][0]["ttft_error"]))
    assert facts["tpot_mape_of_all_points"] > facts["tpot_mape"]
    assert all(entry["fitted_on"] for entry in facts["fitted_constants"].values())
    for name in ("points", "errors"):
        assert (out / "charts" / f"{name}.png").stat().st_size > 5000
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(("change", "said"), [
    ({"isl": 0}, "line 2 is no point"),
    ({"silicon_ttft_ms": -1.0}, "line 2 is no point"),
    ({"concurrency": 2.5}, "line 2 is no point"),
    ({"model_path": "nobody/nothing"}, "is not known"),
    ({"system": "abacus"}, "is not known"),
    ({"tp_size": 3}, "tensor_parallel_size=3"),
])  # fmt: skip
def test_wrong_tables_give_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], said: str
) -> None:
    file = table(tmp_path, change)
    assert main([f"points={file}", f"hydra.run.dir={tmp_path / 'out'}"]) == 2
    output = capsys.readouterr().err
    assert said in output
    assert output.count("\n") == 1


def test_missing_tables_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_points(tmp_path / "none.csv")
    file = tmp_path / "points.csv"
    pd.DataFrame([ROW]).drop(columns="isl").to_csv(file, index=False)
    with pytest.raises(ConfigError, match="column isl"):
        read_points(file)


def test_a_few_shared_points(shared_dir: Path) -> None:
    points = read_points(shared_dir / "measured/silicon_h100_vllm.csv")
    settings = SiliconSettings(points="", profiles_dir=str(shared_dir / "profiles"), jobs=1)
    chosen = [p for p in points if p.users == 8 and p.osl == 128 and p.tensor_parallel_size == 4]
    for point in chosen:
        outcome = simulate_point(point, settings)
        assert outcome.is_possible
        assert abs(outcome.tpot_error) < 0.06
        assert abs(outcome.ttft_error) < 0.3
