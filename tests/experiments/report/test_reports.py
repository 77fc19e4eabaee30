"""`python -m experiments.report`: which folder gets which page, and what stands on it."""

import json
from pathlib import Path

import pytest

from experiments.report import sources
from experiments.report.__main__ import main, write_report
from experiments.report.metrics import headlines, interval_table, metric_table, seconds
from experiments.report.run_page import describe
from experiments.run import main as run
from tests.experiments.report.test_page import read

TINY = [
    "workload=poisson_fixed",
    "workload.num_requests=12",
    "workload.output_lengths.tokens=4",
    "cost_model=constant",
    "progress=false",
    "timeline=false",
    "charts=false",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "run"
    assert run([*TINY, f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "sweep"
    assert run(["-m", *TINY, "queue=fcfs,priority", "cache.block_size=0,16",
                f"hydra.sweep.dir={folder}"]) == 1  # fmt: skip
    return folder


def text_of(page: Path) -> str:
    return " ".join(" ".join(read(page).text).split())


def test_the_page_of_a_run(finished: Path) -> None:
    page = write_report(finished)
    text = text_of(page)
    summary = json.loads((finished / "summary.json").read_text())
    assert page == finished / "report.html"
    assert "12 of 12" in text
    assert seconds(summary["ttft_s_p50"], summary["ttft_s_p99"]) in text
    assert "time to first token (TTFT)" in text
    assert " workload=poisson_fixed workload.num_requests=12" in text
    assert "FixedLengths" in text  # the whole config
    for name in ("Code revision", "Seed", "Python", "Packages", "Machine"):
        assert name in text
    assert len(read(page).all("img")) >= 6  # drawn for the page, as the run has none
    assert not (finished / "charts").exists()
    assert page.stat().st_size < 2_000_000


def test_the_page_of_a_sweep(sweep: Path) -> None:
    page = write_report(sweep)
    text = text_of(page)
    assert "2 runs finished, 2 did not" in text
    assert "cache.block_size=0 must be at least 1" in text
    assert "Shortest TTFT p99" in text
    assert f"python -m experiments.run -m {TINY[0]}" in text
    assert "queue=fcfs,priority" in text
    assert len(read(page).all("img")) >= 3


def test_a_run_that_failed_says_why(sweep: Path, tmp_path: Path) -> None:
    failed = next(path.parent for path in sweep.rglob("FAILED"))
    text = text_of(write_report(failed, tmp_path / "failed.html"))
    assert "(failed)" in text
    assert "cache.block_size=0 must be at least 1" in text


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"device_name": "NVIDIA H100", "cpu": "Xeon"}, "; step times measured on NVIDIA H100;"),
        ({"device_name": None, "cpu": "Xeon"}, "; step times measured on Xeon;"),
        (None, "a100; workload"),
    ],
)
def test_where_step_times_were_measured(facts: dict | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    if facts is not None:
        file.write_text(json.dumps({"facts": facts}))
    (tmp_path / "config.yaml").write_text(
        f"cost_model: {{path: {file}}}\nhardware: {{name: a100}}\nworkload: {{name: w}}\n"
    )
    assert says in describe(tmp_path)


def test_a_folder_of_tables_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "errors.json").write_text(
        json.dumps({"e2e_mape": 0.01, "constants": {"host": 5e-4}})
    )
    (tmp_path / "points.csv").write_text("name,ttft,tpot\na,0.5,\nb,1.5,0.02\n")
    page = write_report(tmp_path)
    text = text_of(page)
    assert "e2e_mape 0.01" in text
    assert "constants.host 0.0005" in text
    assert "b 1.5 0.02" in text
    assert len(read(page).all("table")) == 2


def test_a_page_that_a_command_has_written_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "errors.json").write_text("{}")
    (tmp_path / "report.html").write_text("better")
    assert main([str(tmp_path)]) == 1
    assert "--out" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "better"
    assert main([str(tmp_path), "--out", str(tmp_path / "other.html")]) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.mkdir(), "no run, no sweep and no table"),
        (lambda folder: (folder.mkdir(), (folder / "a.json").write_text("{")), "is no JSON"),
        (lambda folder: (folder.mkdir(), (folder / "summary.json").write_text("{}")), "nothing"),
    ],
    ids=["missing", "empty", "torn", "unfinished"],
)
def test_bad_input_is_told_in_one_line(
    make: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    make(folder)
    status = main([str(folder)])
    error = capsys.readouterr().err
    if message == "nothing":  # a summary without a marker is shown as any other file
        assert status == 0
        return
    assert status == 1
    assert message in error
    assert error.count("\n") == 1


def test_commands_are_as_somebody_would_type_them() -> None:
    assert sources.command_line(["/x/experiments/run.py", "a=b", "c=d e"]) == (
        "python -m experiments.run a=b 'c=d e'"
    )
    assert sources.command_line(["/x/experiments/report/__main__.py", "f"]) == (
        "python -m experiments.report f"
    )
    assert sources.command_line(["/usr/bin/workbench", "run"]) == "workbench run"
    assert sources.command_line([]) == ""


def test_facts_say_whether_code_was_changed() -> None:
    facts = sources.facts({"revision": "abc+def", "seed": 0, "argv": ["x"], "gpu": "none"})
    assert facts["Code revision"] == "abc with uncommitted changes (hash def)"
    assert facts["Seed"] == "0"
    assert facts["gpu"] == "none"
    assert "argv" not in facts


def test_intervals_stand_beside_the_numbers() -> None:
    summary = {"output_tokens_per_s": 100.0, "output_tokens_per_s_low": 90.0,
               "output_tokens_per_s_high": 110.0, "duration_s": 3.0, "ttft_s_p50": 0.1,
               "ttft_s_p99": 0.2, "ttft_s_p99_low": 0.15, "ttft_s_p99_high": 0.25,
               "uncertainty_level": 0.9, "uncertainty_runs": 20}  # fmt: skip
    first, second = headlines(summary)
    assert first.meaning.endswith("90% interval 90 to 110")
    assert second.meaning.endswith("90% interval of the p99 150 to 250 ms")
    assert "90 to 110" in metric_table(summary).rows[1]
    table = interval_table(summary)
    assert table is not None
    assert list(table.rows) == [["time to first token (TTFT), p99", "ms", 200.0, 150.0, 250.0]]
    assert interval_table({"ttft_s_p99": 0.2}) is None
    assert "interval" not in metric_table({"requests": 3}).columns


def test_times_share_a_unit() -> None:
    assert seconds(0.0985, 0.703) == "98.5 / 703 ms"
    assert seconds(0.5, 1.5) == "0.5 / 1.5 s"
    assert seconds(1234.5) == "1,234 s"
