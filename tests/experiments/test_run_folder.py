"""Markers, atomic files and fingerprints of run folders."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.run_folder import (
    CHARTS,
    FILES,
    STARTED,
    RunFolder,
    fingerprint,
    run_folders,
    write_json,
)
from workbench.errors import ConfigError

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=30)
@given(st.dictionaries(st.text(), plain))
def test_fingerprint_ignores_the_order_of_keys(config: dict[str, object]) -> None:
    assert fingerprint(config) == fingerprint(dict(reversed(list(config.items()))))


def test_fingerprint_ignores_presentation_and_sees_the_rest() -> None:
    base = {"seed": 1, "progress": True, "charts": True, "timeline": True, "hydra": {"run": 1}}
    assert fingerprint(base) == fingerprint({"seed": 1, "progress": False, "charts": False})
    assert fingerprint(base) != fingerprint({"seed": 2})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})


def test_a_start_removes_all_that_an_earlier_run_left(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_text("old")
    (tmp_path / CHARTS).mkdir()
    (tmp_path / CHARTS / "old.png").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder(tmp_path).start()
    assert sorted(p.name for p in tmp_path.iterdir()) == [STARTED, "notes.txt"]


def test_a_run_that_was_killed_early_can_be_started_again(tmp_path: Path) -> None:
    RunFolder(tmp_path).start()
    (tmp_path / "config.yaml").write_text("seed: 0")
    RunFolder(tmp_path).start()
    assert not (tmp_path / "config.yaml").exists()
    RunFolder(tmp_path).finish("hash", None)
    assert [file.name for file in tmp_path.iterdir()] == ["DONE"]


def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0")
    with pytest.raises(ConfigError, match="no run of this program"):
        RunFolder(tmp_path).start()


def test_a_finished_run_is_finished_for_its_own_config_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.is_finished("abc")
    folder.finish("abc", None)
    assert folder.is_finished("abc")
    assert not folder.is_finished("abd")


def test_a_marker_cut_short_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "DONE").write_text('{"config_ha')
    assert not RunFolder(tmp_path).is_finished("abc")


def test_a_failure_takes_the_mark_of_success_away(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.finish("abc", None)
    folder.fail("it broke", ValueError("deep inside"))
    assert folder.marker() is None
    assert folder.failure() == "it broke"
    first, *rest = (tmp_path / "error.txt").read_text().splitlines()
    assert first == "it broke"
    assert "ValueError: deep inside" in rest


def test_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_finds_the_runs_below_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a"):
        folder = RunFolder(tmp_path / name)
        folder.start()
        folder.finish("x", None)
    (tmp_path / "c").mkdir()
    assert [run.path.name for run in run_folders(tmp_path)] == ["a", "b"]
    assert [run.path.name for run in run_folders(tmp_path / "a")] == ["a"]
