"""A page tells the command that makes its result again, whatever door the program was called by."""

import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.report import sources

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = ["workload=poisson_fixed", "workload.num_requests=10", "progress=false", "charts=false"]


@pytest.mark.parametrize("program", ["/usr/bin/workbench", str(REPOSITORY / "experiments/cli.py")])
def test_the_command_that_a_page_tells_makes_the_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    words = [*TINY, "queue=shortest_job_first"]
    typed = [program, "run", *words, f"hydra.run.dir={tmp_path / 'first'}"]
    monkeypatch.setattr("sys.argv", typed)
    assert main() == 0
    assert sys.argv is typed
    told = sources.command_line(sources.read_provenance(tmp_path / "first")["argv"])
    python, dash_m, module, *arguments = shlex.split(told)
    assert [python, dash_m] == ["python", "-m"]
    monkeypatch.chdir(tmp_path)
    shutil.move("first", "before")
    assert import_module(module).main(arguments) == 0
    before, again = (tmp_path / name / "requests.parquet" for name in ("before", "first"))
    assert again.read_bytes() == before.read_bytes()


def test_a_search_for_capacity_is_told_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr("sys.argv", ["/usr/bin/workbench", "capacity", "slo.ttft_p99=1"])
    monkeypatch.setattr("hydra.main", lambda **_: lambda _: lambda: seen.append(sys.argv))
    assert main() == 0
    told = sources.command_line(seen[0])
    assert told == "python -m experiments.capacity -m ++capacity.slo.ttft_p99=1"
