"""What the files beside the weights say: tokenizer, end of sequence, sampling defaults."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.errors import ModelLoadError
from engine.input_processor import EosTokens
from engine.model_files import find_eos_tokens, find_tokenizer, sampling_defaults
from tests.engine.checkpoints import make_tokenizer
from workbench.sampling_params import SamplingParams


def write(folder: Path, **values: Any) -> str:
    (folder / "generation_config.json").write_text(json.dumps(values))
    return str(folder)


def test_a_checkpoint_without_tokenizer_still_serves_token_ids(tmp_path: Path) -> None:
    tokenizer, reason = find_tokenizer(EngineConfig(model=str(tmp_path)))
    assert tokenizer is None
    assert reason == f"{tmp_path} has no tokenizer (name another folder with tokenizer=)"
    tokenizer, reason = find_tokenizer(EngineConfig(model={}, load_format="dummy"))
    assert tokenizer is None
    assert "given as a dict" in reason


def test_a_tokenizer_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="has no tokenizer"):
        find_tokenizer(EngineConfig(model="anywhere", tokenizer=str(tmp_path)))


def test_the_tokenizer_may_lie_elsewhere_or_be_skipped(tmp_path: Path) -> None:
    folder = str(make_tokenizer(tmp_path))
    tokenizer, _ = find_tokenizer(EngineConfig(model="anywhere", tokenizer=folder))
    assert tokenizer.eos_token_id == 257
    assert find_tokenizer(EngineConfig(model=folder))[0] is not None
    skipped = EngineConfig(model=folder, skip_tokenizer_init=True)
    assert find_tokenizer(skipped) == (None, "skip_tokenizer_init=True")


@pytest.mark.parametrize(
    ("generation", "config", "tokenizer", "expected"),
    [
        ({}, 5, 7, EosTokens(7, (5,))),
        ({}, 5, None, EosTokens(5)),
        ({"eos_token_id": [8, 9, 8]}, 5, 9, EosTokens(9, (8,))),
        ({"eos_token_id": [8, 9]}, 5, None, EosTokens(8, (9,))),
        ({"eos_token_id": 8}, None, None, EosTokens(8)),
        ({}, None, None, EosTokens()),
        ({}, [3, 4], 4, EosTokens(4, (3,))),
    ],
)
def test_the_end_of_sequence_is_the_tokenizers_first(
    tmp_path: Path, generation: dict[str, Any], config: Any, tokenizer: Any, expected: EosTokens
) -> None:
    folder = write(tmp_path, **generation)
    named = None if tokenizer is None else SimpleNamespace(eos_token_id=tokenizer)
    assert find_eos_tokens(folder, SimpleNamespace(eos_token_id=config), named) == expected


def test_sampling_defaults_are_the_generation_configs(tmp_path: Path) -> None:
    assert sampling_defaults(str(tmp_path)) == SamplingParams()
    assert sampling_defaults({}) == SamplingParams()
    folder = write(tmp_path, temperature=0.6, top_p=0.9, do_sample=True, max_new_tokens=None)
    assert sampling_defaults(folder) == SamplingParams(temperature=0.6, top_p=0.9)


def test_a_generation_config_that_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"generation_config\.json: top_p=7 must be in"):
        sampling_defaults(write(tmp_path, top_p=7))
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ModelLoadError, match="is not JSON"):
        sampling_defaults(str(tmp_path))
