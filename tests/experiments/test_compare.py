"""Run folders of a sweep become one table; what failed is named."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from experiments.compare import (
    collect_runs,
    comparison_figures,
    main,
    mean_over_seeds,
    write_comparison,
)
from experiments.compare_table import print_comparison
from experiments.figures import curves
from experiments.tables import write_requests_parquet
from workbench.errors import WorkbenchError
from workbench.metrics import SLO, RequestRecord, StepLog, summarize


def make_run(folder, overrides, *, done=True, speed=1.0):
    """A run folder as a finished (or killed) run leaves it."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    times = np.array([1.0, 1.5, 2.0]) / speed
    records = [
        RequestRecord(str(i), 0, 0.0, 0.1, float(times[-1]), 10, 3, 0, 0, "stop", times)
        for i in range(3)
    ]
    summary = summarize(records, StepLog(), SLO(ttft_s=0.8)) | {"seed": 0}
    (folder / "summary.json").write_text(json.dumps(summary))
    write_requests_parquet(folder / "requests.parquet", records)
    if done:
        (folder / "DONE").write_text("{}")
    return folder


@pytest.fixture
def sweep(tmp_path):
    for i, queue in enumerate(["fcfs", "sjf"]):
        for rate in (1, 2, 10):
            run = tmp_path / f"{i}{rate}"
            make_run(run, ["experiment=e", f"queue={queue}", f"workload.rate={rate}"], speed=rate)
    return tmp_path


def test_runs_are_collected_with_their_overrides(sweep):
    found = collect_runs(sweep)
    assert found.runs["run"].tolist() == ["01", "02", "010", "11", "12", "110"]
    assert found.varying == ["queue", "workload.rate"]
    assert found.runs["label"][0] == "fcfs, rate=1"
    assert found.runs["workload.rate"].tolist() == [1, 2, 10] * 2
    assert found.runs["ttft_s_p50"].tolist() == [1.0, 0.5, 0.1] * 2
    assert found.failed.empty


def test_runs_without_a_marker_are_not_results(sweep):
    killed = make_run(sweep / "k", ["queue=lost"], done=False)
    failed = make_run(sweep / "f", ["queue=bad"], done=False)
    (failed / "FAILED").write_text("max_num_seqs=0 must be >= 1\n")
    (failed / "error.txt").write_text("max_num_seqs=0 must be >= 1\n\nTraceback ...")
    broken = make_run(sweep / "b", ["queue=torn"])
    (broken / "summary.json").write_text('{"requests": 1')
    found = collect_runs(sweep)
    assert len(found.runs) == 6
    status = found.failed.set_index("run")[["status", "error"]]
    assert status.loc["f"].tolist() == ["failed", "max_num_seqs=0 must be >= 1"]
    assert status.loc[killed.name, "status"] == "unfinished"
    assert status.loc["b", "error"].startswith("summary.json")


def test_files_are_written(sweep):
    paths = {p.name for p in write_comparison(collect_runs(sweep))}
    assert paths == {
        "comparison.csv",
        "comparison.md",
        "throughput.png",
        "latency.png",
        "cache_and_batch.png",
        "latency_cdf.png",
        "by_rate.png",
        "latency_vs_throughput.png",
        "slo_attainment.png",
    }
    table = pd.read_csv(sweep / "comparison.csv")
    assert table["output_tokens"].tolist() == [9] * 6
    page = (sweep / "comparison.md").read_text()
    assert "6 runs finished, 0 did not" in page
    assert page.count("| fcfs | ") == 3
    assert "![latency](charts/latency.png)" in page


def test_collecting_again_does_not_read_its_own_output(tmp_path):
    make_run(tmp_path / "1", [])
    write_comparison(collect_runs(tmp_path))
    assert collect_runs(tmp_path).runs["run"].tolist() == ["1"]


@pytest.mark.parametrize("width", [60, 200])
def test_the_table_fits_the_console(sweep, width):
    (make_run(sweep / "f", ["queue=[x]"], done=False) / "FAILED").write_text("no [bold] luck")
    console = Console(width=width, record=True, file=io.StringIO())
    found = collect_runs(sweep)
    print_comparison(found.runs, found.failed, found.varying, console)
    text = console.export_text()
    assert text.count("fcfs") == 3
    assert ("E2E" in text) == (width == 200)
    assert "no [bold] luck" in text.replace("\n", " ")
    assert max(map(len, text.splitlines())) <= width


def test_main_tells_of_runs_without_a_result_by_its_status(tmp_path):
    console = Console(file=io.StringIO())
    make_run(tmp_path / "d", [])
    assert main(tmp_path, console) == 0
    (make_run(tmp_path / "f", [], done=False) / "FAILED").write_text("no")
    assert main(tmp_path, console) == 1
    (tmp_path / "f" / "FAILED").unlink()
    assert main(tmp_path, console) == 1


def test_seeds_are_averaged(tmp_path):
    for seed in (0, 1):
        run = make_run(tmp_path / str(seed), ["queue=a", f"seed={seed}"], speed=1 + seed)
        make_run(tmp_path / f"b{seed}", ["queue=b", f"seed={seed}"])
        assert run.exists()
    means = mean_over_seeds(collect_runs(tmp_path))
    assert means["label"].tolist() == ["a", "b"]
    assert means["ttft_s_p50"].tolist() == [0.75, 1.0]


def test_equal_labels_are_told_apart(tmp_path):
    for name in ("x", "y"):
        make_run(tmp_path / name, ["queue=a"])
    assert collect_runs(tmp_path).runs["label"].tolist() == ["default #x", "default #y"]


def test_overrides_that_add_and_remove(tmp_path):
    make_run(tmp_path / "1", ["+extra=1", "~slo"])
    make_run(tmp_path / "2", ["++extra=2", "extra=3"])
    found = collect_runs(tmp_path)
    assert found.runs["extra"].tolist() == [1, 3]
    assert found.runs["slo"].tolist()[0] == "removed"


def test_a_rate_of_conversations_is_called_so(sweep, monkeypatch):
    titles = []
    plain = curves.metrics_vs_parameter
    monkeypatch.setattr(
        curves,
        "metrics_vs_parameter",
        lambda table, key, group, title: titles.append(title) or plain(table, key, group, title),
    )
    turns = {"workload": {"sharing": {"_target_": "workbench.workload.sharing.MultiTurn"}}}
    for config in ({"workload": {"sharing": None}}, turns, {"workload": {"multi_turn": True}}):
        (sweep / "01" / "config.yaml").write_text(yaml.safe_dump(config))
        names = [name for name, _ in comparison_figures(collect_runs(sweep))]
        assert "by_rate" in names
    one, many = "arrival rate (requests/s)", "arrival rate (conversations/s)"
    assert titles == [one, many, many]


def test_a_single_run_is_a_sweep_of_one(tmp_path):
    make_run(tmp_path / "only", [])
    found = collect_runs(tmp_path / "only")
    assert found.runs["run"].tolist() == ["."]
    assert write_comparison(found)


def test_only_failed_runs(tmp_path):
    (make_run(tmp_path / "f", ["a=1"], done=False) / "FAILED").write_text("")
    found = collect_runs(tmp_path)
    assert found.failed["error"].tolist() == ["no message"]
    assert len(write_comparison(found)) == 2


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(WorkbenchError, match="no run folder"):
        collect_runs(tmp_path)
