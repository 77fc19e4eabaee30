"""Dotted paths: what they name is found, and one that leads nowhere is told once, in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.targets import locate
from workbench.errors import ConfigError
from workbench.kv_cache.eviction import LRUEviction


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_classes_functions_and_what_is_in_them_are_found() -> None:
    assert locate("workbench.kv_cache.eviction.LRUEviction") is LRUEviction
    assert locate("experiments.targets.locate") is locate
    assert locate("pathlib.Path.cwd") == Path.cwd
    assert locate("xml.dom.minidom").__name__ == "xml.dom.minidom"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module.Mine", "there is no module 'no_such_module'"),
        ("workbench.kv_cache.evicton.LRU", "has no 'evicton'; did you mean .*.eviction?"),
        ("workbench.kv_cache.eviction.LRUEvicton", "did you mean .*.eviction.LRUEviction?"),
        ("pathlib.Path.nothing_like_it", "pathlib.Path has no 'nothing_like_it'$"),
        ("a..b", "write MODULE.CLASS"),
        ("", "write MODULE.CLASS"),
    ],
)
def test_a_path_that_leads_nowhere_is_told(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        locate(path)


def test_a_module_that_cannot_be_imported_is_told(own: Path) -> None:
    (own / "own_needs.py").write_text("import no_such_package")
    (own / "own_fails.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match="own_needs imports no_such_package, which is not"):
        locate("own_needs.Mine")
    with pytest.raises(ConfigError, match="importing own_fails fails: ZeroDivisionError"):
        locate("own_fails.Mine")


def test_a_policy_that_is_misspelt_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "own_policies.py").write_text("class MyQueue: pass")
    words = ["queue._target_=own_policies.MyQeue", f"hydra.run.dir={tmp_path / 'out'}"]
    command = [sys.executable, "-m", "experiments.cli", "run", *words]
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "queue._target_=own_policies.MyQeue: module own_policies has no 'MyQeue'" in done.stderr
    assert "did you mean own_policies.MyQueue?" in done.stderr
    assert done.stderr.count("\n") == 1
