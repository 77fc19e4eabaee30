"""Runs repeated from their folder alone: what must be the same, and what is said if it is not."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from experiments.rerun import rerun
from experiments.run import main
from workbench.errors import ConfigError

SHORT = ["cost_model=constant", "progress=false", "charts=false", "timeline=false"]
PLAIN = [*SHORT, "workload=poisson_fixed", "workload.num_requests=20"]


def run(folder: Path, *overrides: str) -> int:
    return main([*overrides, f"hydra.run.dir={folder}"])


def test_a_run_can_be_repeated_from_its_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_TRACES", "somewhere")
    assert run(tmp_path / "first", *PLAIN, "seed=7", "queue=priority") == 0
    shutil.rmtree(tmp_path / "first" / ".hydra")
    monkeypatch.delenv("WORKBENCH_TRACES")
    assert "done" in rerun(tmp_path / "first", tmp_path / "second")
    for name in ("requests.parquet", "steps.parquet", "config.yaml"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert (tmp_path / "first" / "DONE").read_text() == (tmp_path / "second" / "DONE").read_text()


def write_trace(file: Path, *lengths: int) -> None:
    rows = [f"{i / 10},{length},5" for i, length in enumerate(lengths)]
    file.write_text("\n".join(["arrived_at,num_prefill_tokens,num_decode_tokens", *rows]) + "\n")


ON_A_TRACE = [*SHORT, "workload=csv", "workload.path=trace.csv"]


def test_a_run_knows_what_it_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_trace(tmp_path / "trace.csv", 100, 50)
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path / "first", *ON_A_TRACE) == 0
    (told,) = json.loads((tmp_path / "first" / "provenance.json").read_text())["inputs"]
    content = (tmp_path / "trace.csv").read_bytes()
    assert told == {
        "setting": "workload.path",
        "path": str(tmp_path / "trace.csv"),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_a_run_of_relative_paths_is_repeated_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_trace(tmp_path / "trace.csv", 100, 50)
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path / "first", *ON_A_TRACE) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    rerun(tmp_path / "first", tmp_path / "second")
    for name in ("requests.parquet", "steps.parquet", "config.yaml", "DONE"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_run_whose_trace_has_changed_is_not_repeated_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "trace.csv"
    write_trace(trace, 100, 50)
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path / "first", *ON_A_TRACE) == 0
    write_trace(trace, 100, 51)
    with pytest.raises(ConfigError, match=f"workload.path: {trace} has changed .*--allow-changed"):
        rerun(tmp_path / "first", tmp_path / "second")
    assert not (tmp_path / "second").exists()
    note = rerun(tmp_path / "first", tmp_path / "second", allow_changed_inputs=True)
    assert f"on other files than the first run: workload.path: {trace}" in note
    trace.unlink()
    with pytest.raises(ConfigError, match="is not there"):
        rerun(tmp_path / "first", tmp_path / "third")


def test_repeating_needs_a_run_and_another_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run folder"):
        rerun(tmp_path, tmp_path / "out")
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(ConfigError, match="name another one"):
        rerun(tmp_path, tmp_path)
