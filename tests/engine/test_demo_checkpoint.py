"""The demo's checkpoint: it loads, its tokenizer round-trips, it is written once."""

from pathlib import Path

import pytest

from engine.demo_checkpoint import CONFIG, main, write_demo_checkpoint
from engine.loader import load_model
from engine.models.registry import read_hf_config
from tests.without_torch import run_without_torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_checkpoint(tmp_path_factory.mktemp("demo"))


def test_the_engine_loads_it(folder: Path) -> None:
    model = load_model(read_hf_config(folder), folder, "auto", "auto", "cpu", 0)
    assert model.vocab_size == CONFIG["vocab_size"]


def test_every_byte_is_a_token(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "Füße, 東京 and\n\ttabs 🚀"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id == CONFIG["eos_token_id"]
    assert "user: hello" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], tokenize=False
    )


def test_a_folder_that_holds_one_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr("sys.argv", ["demo_checkpoint", str(folder)])
    assert main() == 0
    assert "already" in capsys.readouterr().out
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_what_cannot_be_is_told_in_one_line(tmp_path: Path) -> None:
    done = run_without_torch(
        "from engine.demo_checkpoint import main; "
        f"sys.argv = ['demo_checkpoint', '{tmp_path / 'new'}']; sys.exit(main())"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: a checkpoint is written with torch, which is not inst")
    assert "pip install -e '.[engine]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["demo_checkpoint", str(tmp_path / "file" / "demo")])
    assert main() == 1
    err = capsys.readouterr().err
    assert "cannot be made" in err
    assert err.count("\n") == 1
