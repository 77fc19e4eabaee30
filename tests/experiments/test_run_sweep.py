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


def test_a_value_of_the_wrong_type_stops_a_sweep_before_it_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path, "scheduler.max_num_seqs=4,many,8") == 2
    assert "expected a whole number, got 'many'" in capsys.readouterr().err
    assert run_folders(tmp_path) == []


def write_trace(file: Path, *lengths: int) -> None:
    rows = [f"{i / 10},{length},5" for i, length in enumerate(lengths)]
    file.write_text("\n".join(["arrived_at,num_prefill_tokens,num_decode_tokens", *rows]) + "\n")


def test_jobs_on_a_trace_that_has_changed_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        write_trace(tmp_path / place / "trace.csv", 100, 50)
    monkeypatch.chdir(tmp_path / "here")
    command = ["-m", *TINY[2:], "workload=csv", "workload.path=trace.csv", "seed=0,1"]
    command.append(f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert main(command) == 0
    monkeypatch.chdir(tmp_path / "there")  # the same file in another place
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.count("already done") == 2
    write_trace(tmp_path / "there" / "trace.csv", 100, 50, 7)
    assert main(command) == 0
    told = capsys.readouterr().out
    assert told.count("running again, for workload.path: ") == 2
    assert told.count("has changed (sha256 ") == 2
    runs = run_folders(tmp_path / "sweep")
    assert [run.summary()["requests"] for run in runs] == [3, 3]
    (tmp_path / "there" / "trace.csv").unlink()  # the results are all that is left of it
    assert main(command) == 0
    assert capsys.readouterr().out.count("trace.csv is not there") == 2


@pytest.mark.parametrize("name", ["summary.json", "requests.parquet", "steps.parquet"])
def test_a_finished_job_whose_files_are_gone_runs_again(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path, "seed=0") == 0
    (run,) = run_folders(tmp_path)
    (run.path / name).unlink()
    capsys.readouterr()
    assert sweep(tmp_path, "seed=0") == 0
    assert f"running again, for its {name} is gone" in capsys.readouterr().out
    assert (run.path / name).exists()


def test_a_finished_job_without_charts_only_draws_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path, "seed=0") == 0
    (run,) = run_folders(tmp_path)
    before = (run.path / "DONE").stat().st_mtime_ns
    capsys.readouterr()
    assert sweep(tmp_path, "seed=0", "charts=true", "timeline=true") == 0
    assert "already done" in capsys.readouterr().out
    assert (run.path / "DONE").stat().st_mtime_ns == before
    assert len(list((run.path / "charts").glob("*.png"))) == 8
    assert json.loads((run.path / "timeline.json").read_text())["traceEvents"]


def test_a_sweep_whose_table_has_a_run_without_a_result_ends_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path, "seed=0,1") == 0
    (run_folders(tmp_path)[0].path / "summary.json").unlink()
    assert sweep(tmp_path, "seed=2") == 1
    assert "holds runs without a result" in capsys.readouterr().err


def test_jobs_run_in_worker_processes(tmp_path: Path) -> None:
    assert sweep(tmp_path, "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2") == 0
    assert len(finished(tmp_path)) == 2
    marker = json.loads((run_folders(tmp_path)[0].path / "DONE").read_text())
    assert marker.keys() == {"config_hash", "revision"}
