"""MODEL=demo is written once, by another process."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.serving import demo
from experiments.serving.options import read_options
from workbench.errors import ConfigError

TOLD = "error: a checkpoint is written with torch: pip install -e '.[engine]'"


def test_a_model_that_is_there_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / demo.FOLDER
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(subprocess, "run")
    options = read_options(["demo"], {})
    assert options.model.name == "demo"
    assert options.model.folder == demo.FOLDER
    assert options.server["served_model_names"] == ("demo",)


def test_without_torch_the_cure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(words: list[str], **_: Any) -> SimpleNamespace:
        asked.append(words)
        return SimpleNamespace(returncode=1, stderr=f"warning\n{TOLD}\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ConfigError, match=r"torch.*pip install.*simulator") as error:
        demo.demo_folder(tmp_path)
    assert str(error.value).count("pip") == 1
    assert asked[0][1:] == ["-m", demo.MODULE, str(tmp_path)]
