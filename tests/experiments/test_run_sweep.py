"""Sweeps: failed jobs are recorded, finished ones are kept, the comparison is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import job
from experiments.run import main
from experiments.run_folder import RunFolder, run_folders

TINY = [
    "workload=poisson_fixed",
    "workload.num_requests=10",
    "cost_model=constant",
    "progress=false",
    "charts=false",
    "timeline=false",
]


def sweep(folder: Path, *overrides: str) -> int:
    return main(["-m", *TINY, *overrides, f"hydra.sweep.dir={folder}"])


def finished(folder: Path) -> set[str]:
    return {run.path.name for run in run_folders(folder) if run.marker() is not None}


def test_a_sweep_writes_its_runs_and_their_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path, "queue=fcfs,priority", "seed=range(0,2)") == 0
    runs = run_folders(tmp_path)
    assert len(runs) == 4
    assert {run.summary()["seed"] for run in runs} == {0, 1}
    assert "priority" in (tmp_path / "comparison.csv").read_text()
    assert (tmp_path / "comparison.md").exists()
    assert "priority" in capsys.readouterr().out


def test_a_failed_job_is_recorded_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path, "cache.block_size=0,16,32") == 1
    failures = [run.failure() for run in run_folders(tmp_path) if run.failure()]
    assert failures == ["cache.block_size=0 must be at least 1"]
    assert len(finished(tmp_path)) == 2
    error = capsys.readouterr().err
    assert "1 job of the sweep failed" in error
    assert "Traceback" not in error


def test_a_sweep_may_end_at_the_first_failure(tmp_path: Path) -> None:
    assert sweep(tmp_path, "cache.block_size=0,16,32", "fail_fast=true") == 1
    assert finished(tmp_path) == set()


def test_a_sweep_that_was_killed_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_into = job.run_into
    calls = []

    def killed_at_the_third(folder: RunFolder, *arguments: Any, **options: Any) -> object:
        calls.append(folder.path.name)
        if len(calls) == 3:
            folder.start()
            raise KeyboardInterrupt
        return run_into(folder, *arguments, **options)

    monkeypatch.setattr(job, "run_into", killed_at_the_third)
    assert sweep(tmp_path, "seed=0,1,2,3") == 130
    before = finished(tmp_path)
    assert before == set(calls[:2])
    stamps = {name: (tmp_path / name / "DONE").stat().st_mtime_ns for name in before}
    capsys.readouterr()

    assert sweep(tmp_path, "seed=0,1,2,3", "fail_fast=true") == 0
    assert len(finished(tmp_path)) == 4
    assert len(calls) == 5
    assert capsys.readouterr().out.count("already done") == 2
    assert all((tmp_path / n / "DONE").stat().st_mtime_ns == stamps[n] for n in before)


def test_a_folder_is_named_by_what_sets_its_run_apart(tmp_path: Path) -> None:
    assert sweep(tmp_path, "scheduler.max_num_seqs=4,8", "queue=fcfs", "slo.ttft_s=0.5") == 0
    names = sorted(name.rpartition("-")[0] for name in finished(tmp_path))
    assert names == ["max_num_seqs=4", "max_num_seqs=8"]


def test_finished_jobs_run_again_on_request_or_with_another_config(tmp_path: Path) -> None:
    assert sweep(tmp_path, "seed=0") == 0
    (done,) = finished(tmp_path)
    stamp = (tmp_path / done / "DONE").stat().st_mtime_ns
    assert sweep(tmp_path, "seed=0", "resume=false") == 0
    assert (tmp_path / done / "DONE").stat().st_mtime_ns > stamp
    assert sweep(tmp_path, "seed=0", "scheduler.max_num_seqs=4") == 0
    assert len(finished(tmp_path)) == 2


def test_a_value_that_is_misspelt_stops_a_sweep_before_it_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path, "queue=fcfs,proirity") == 2
    assert "did you mean priority?" in capsys.readouterr().err
    assert run_folders(tmp_path) == []


def test_jobs_run_in_worker_processes(tmp_path: Path) -> None:
    assert sweep(tmp_path, "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2") == 0
    assert len(finished(tmp_path)) == 2
    marker = json.loads((run_folders(tmp_path)[0].path / "DONE").read_text())
    assert marker.keys() == {"config_hash", "revision"}
