"""Intervals beside the headlines of a run, and runs that ask for none."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.calibration_report import price_table, write_calibration_report
from experiments.run import main
from experiments.uncertainty import HEADLINES, Uncertainty, intervals
from experiments.validate import check_has_bands
from simulator.calibration import Calibration, fit
from simulator.calibration.terms import COUNTS, CURVED, Curve, Prices
from tests.simulator.calibration.worlds import designed, recorded
from workbench.errors import ConfigError

TINY = ["workload=poisson_fixed", "workload.num_requests=20", "progress=false", "timeline=false"]


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    assert main([*TINY, *overrides, f"hydra.run.dir={folder}"]) == 0
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_a_stated_model_error_gives_intervals(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", "charts=false")
    bands = ["uncertainty=bands", "uncertainty.runs=6", "uncertainty.model_error=0.05"]
    summary = run(tmp_path / "bands", *bands, "charts=true")
    again = run(tmp_path / "again", *bands, "charts=false")
    for name in ("ttft_s_mean", "tpot_s_p99", "e2e_s_p50"):
        low, high = summary[f"{name}_low"], summary[f"{name}_high"]
        assert low < high
        assert 0.8 < low / plain[name] < 1.1
        assert (again[f"{name}_low"], again[f"{name}_high"]) == (low, high)
    assert summary["uncertainty_runs"] == 6
    assert summary["uncertainty_level"] == pytest.approx(5 / 7)  # six runs tell no more
    assert (tmp_path / "bands" / "charts" / "uncertainty.png").stat().st_size > 1000


def test_a_run_without_it_says_nothing_of_it(tmp_path: Path) -> None:
    summary = run(tmp_path / "plain", "charts=false")
    assert not [name for name in summary if name.endswith(("_low", "_high"))]
    assert "uncertainty" not in (tmp_path / "plain" / "config.yaml").read_text()


def test_a_calibration_knows_its_errors(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    fit(designed() + recorded(runs=3, steps=80)).save(file)
    calibrated = ["cost_model=calibrated", f"cost_model.path={file}", "charts=false"]
    limits = ["scheduler.max_num_seqs=16", "scheduler.max_num_batched_tokens=256"]
    bands = ["uncertainty=bands", "uncertainty.runs=4"]
    summary = run(tmp_path / "run", *calibrated, *limits, *bands)
    assert summary["tpot_s_mean_low"] < summary["tpot_s_mean_high"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["uncertainty=bands"], "uncertainty.model_error is not set"),
        (["uncertainty=bands", "uncertainty.runs=1"], "uncertainty.runs=1 must be at least 2"),
        (["uncertainty=bands", "uncertainty.level=1.5"], "uncertainty.level=1.5 must be between"),
        (["uncertainty=bands", "uncertainty.seeds=3"], "uncertainty has: runs"),
    ],
)
def test_what_cannot_be_had_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    assert main([*TINY, "charts=false", *overrides, f"hydra.run.dir={tmp_path / 'run'}"]) != 0
    assert message in capsys.readouterr().err


def test_bands_draw_the_noise_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "calibration.json"
    fit(designed() + recorded(runs=3, steps=80)).save(file)
    words = ["cost_model=calibrated", f"cost_model.path={file}", "cost_model.noise=1"]
    summaries = [run(tmp_path / str(i), *words, "charts=false") for i in range(2)]
    assert summaries[0]["ttft_s_mean"] == summaries[1]["ttft_s_mean"]
    folder = f"hydra.run.dir={tmp_path / 'bands'}"
    assert main([*TINY, *words, "uncertainty=bands", folder]) != 0
    assert "leave cost_model.noise out" in capsys.readouterr().err


def test_intervals_leave_out_the_tails() -> None:
    told = [{"ttft_s_mean": float(i), "tpot_s_mean": None} for i in range(1, 100)]
    expected = {"ttft_s_mean_low": 5.0, "ttft_s_mean_high": 95.0}
    assert intervals(told, 0.9) == pytest.approx(expected)
    assert "ttft_s_mean" in HEADLINES
    with pytest.raises(ConfigError, match="level=0"):
        Uncertainty(level=0.0)


@pytest.fixture
def one_recording(tmp_path: Path) -> list[str]:
    """Overrides of a calibration that knows nothing of whole runs."""
    file = tmp_path / "calibration.json"
    fit(designed() + recorded(runs=1, steps=100)).save(file)
    limits = ["scheduler.max_num_seqs=16", "scheduler.max_num_batched_tokens=256"]
    return ["cost_model=calibrated", f"cost_model.path={file}", "charts=false", *limits]


def test_bands_of_a_calibration_with_one_recording_are_refused(
    tmp_path: Path, one_recording: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*TINY, *one_recording, "uncertainty=bands", f"hydra.run.dir={tmp_path / 'run'}"]
    assert main(argv) != 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "fewer than 2 recordings" in line
    assert "calibrate.rounds=2" in line
    assert "uncertainty.model_error" in line


def test_a_stated_model_error_stands_in_for_recordings(
    tmp_path: Path, one_recording: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bands = ["uncertainty=bands", "uncertainty.runs=4", "uncertainty.model_error=0.05"]
    summary = run(tmp_path / "run", *one_recording, *bands)
    assert summary["tpot_s_mean_high"] > 1.02 * summary["tpot_s_mean_low"]
    assert "[low, high]: 60 % intervals, from 4 simulations" in capsys.readouterr().out


def test_a_validation_refuses_such_a_calibration_before_it_runs_anything(
    one_recording: list[str],
) -> None:
    file = one_recording[1].partition("=")[2]
    with pytest.raises(ConfigError, match=r"validate.calibration=.* fewer than 2 recordings"):
        check_has_bands(Calibration.load(Path(file)), file)


def test_the_page_of_a_calibration_has_a_line_for_every_price() -> None:
    curve = Curve((0.0, 10.0), (1e-6,))
    prices = Prices(dict.fromkeys(COUNTS, 1e-5), dict.fromkeys(CURVED, curve))
    table = price_table(Calibration(prices, prices))
    assert len({row[0] for row in table.rows}) == len(COUNTS) + len(CURVED)


def test_the_page_of_a_calibration_says_what_one_recording_does_not_know(tmp_path: Path) -> None:
    for runs, expected in ((1, "How far a whole run is off is not known"), (3, "A whole run is")):
        steps = designed() + recorded(runs=runs, steps=80)
        write_calibration_report(tmp_path, fit(steps), steps, [])
        page = (tmp_path / "report.html").read_text()
        assert expected in page
        assert ("predicted without itself)." in page) == (runs == 3)
