"""The console script: help, listings, and the commands that work on run folders."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from experiments.assemble import Assembly
from experiments.cli import EXAMPLES, FORWARDED, main
from experiments.run import compose_config

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = [
    "workload=poisson_fixed",
    "workload.num_requests=10",
    "cost_model=constant",
    "progress=false",
    "charts=false",
]


def test_help_explains_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    commands = ("run", "plot", "compare", "rerun", "conformance", "bench-scheduler", "fetch-traces")
    for command in (*commands, "list", "No GPU is needed"):
        assert command in text


@pytest.mark.parametrize("command", sorted(FORWARDED))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main([command, "--help"])
    except SystemExit as end:  # argparse ends the program
        status = end.code
    assert status == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("workbench ")


def test_the_help_of_run_shows_no_internal_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    assert "workbench list" in text
    assert "schema" not in text
    assert "_target_" not in text


def test_without_a_command_it_helps_and_says_that_this_was_no_use(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    assert "first steps" in capsys.readouterr().out


def test_help_is_quick_to_import() -> None:
    code = (
        "import sys, experiments.cli; "
        "print([m for m in ('numpy', 'hydra', 'pandas', 'simpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_lists_groups_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "queue: " in capsys.readouterr().out
    assert main(["list", "queue"]) == 0
    assert "queue=fcfs" in capsys.readouterr().out
    assert main(["list", "queu"]) == 2
    assert "did you mean queue?" in capsys.readouterr().err


def test_run_plot_compare_and_rerun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "runs" / "first", tmp_path / "runs" / "second"
    assert main(["run", *TINY, f"hydra.run.dir={first}"]) == 0
    assert main(["rerun", str(first), "--out", str(second)]) == 0
    assert not (first / "charts").exists()
    assert main(["plot", str(first)]) == 0
    assert list((first / "charts").glob("*.png"))
    assert main(["compare", str(tmp_path / "runs")]) == 0
    assert (tmp_path / "runs" / "comparison.csv").exists()
    assert "Traceback" not in capsys.readouterr().err
    nowhere = first / "config.yaml" / "again"
    assert main(["rerun", str(first), "--out", str(nowhere)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: --out {nowhere}: the folder cannot be made")
    assert "error.txt" not in error


@pytest.mark.parametrize(
    "arguments",
    [["plot", "{}"], ["plot", "{}/nowhere"], ["compare", "{}"], ["rerun", "{}", "--out", "{}/x"]],
)
def test_a_folder_without_runs_is_told_in_one_line(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([a.format(tmp_path) for a in arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error


@pytest.mark.parametrize("command", ["run", "conformance", "bench-scheduler", "fetch-traces"])
def test_commands_with_their_own_arguments_have_their_own_help(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main([command, "--help"])
    except SystemExit as end:
        status = end.code
    assert status in (0, None)
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("words", [["view", "--help"], ["list", "router"]])
def test_a_reader_who_has_seen_enough_is_no_error(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "experiments.cli", *words]
    with open(writing, "wb") as nobody:
        ended = subprocess.run(
            command, stdout=nobody, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert ended.stderr == b""
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (["run", *TINY], "hydra.run.dir="),
        (["run", "-m", *TINY], "hydra.sweep.dir="),
        (["parity"], "hydra.run.dir="),
    ],
)
def test_a_folder_that_cannot_be_made_is_told_in_one_line(
    command: list[str], flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    word = f"{flag}{tmp_path}/file/run"
    assert main([*command, word]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {word}: the folder cannot be made (Not a directory")
    assert err.count("\n") == 1


def test_options_of_ones_own_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue" / "mine.yaml").write_text("# The best one.\n")
    assert main(["list", "queue", "--config-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "queue=fcfs " in out
    assert "The best one." in out
    assert main(["list", "-cd", str(tmp_path / "nowhere")]) == 1
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "fetch-traces", "parity"])
def test_help_speaks_of_the_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):
        main([command, "--help"])
    out = capsys.readouterr().out
    assert "usage: python" not in out
    assert "It knows" not in out
    assert f"workbench {command}" in out or command == "parity"


def test_the_sweep_of_the_help_compares_different_things(tmp_path: Path) -> None:
    sweep = next(words for words in EXAMPLES.splitlines() if " run -m queue=" in words)
    queues = sweep.split("queue=")[1].split()[0].split(",")
    runs = [compose_config([f"queue={queue}", "workload.num_requests=200"]) for queue in queues]
    results = [Assembly.from_config(run).start().run() for run in runs]
    first, second = ([r.finish_s for r in result.records] for result in results)
    assert first != second
