"""What MODEL on the command line may be."""

from pathlib import Path

import pytest

from experiments.serving.model_source import ModelSource, preset_names
from workbench.errors import ConfigError


def test_a_folder_with_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in (tmp_path, tmp_path / "config.json"):
        source = ModelSource.of(str(name))
        assert source.folder == tmp_path
        assert not source.is_preset
        assert source.has_config
        assert not source.has_tokenizer


def test_every_preset_is_a_model() -> None:
    assert "llama3_8b" in preset_names()
    for name in preset_names():
        source = ModelSource.of(name)
        assert source.is_preset
        assert source.has_config


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("meta-llama/Llama-3.1-8B", "nothing is downloaded"),
        ("llama3_8", "did you mean the preset llama3_8b"),
        ("nowhere", "MODEL demo"),
        ("..", "neither config.json nor a tokenizer"),
    ],
)
def test_what_is_no_model_is_told_with_a_cure(name: str, told: str, tmp_path: Path) -> None:
    name = str(tmp_path) if name == ".." else name
    with pytest.raises(ConfigError) as caught:
        ModelSource.of(name)
    assert told in str(caught.value)
