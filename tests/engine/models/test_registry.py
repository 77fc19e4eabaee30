"""Configs that are read, and configs that are refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import ModelLoadError
from engine.loader import load_model
from engine.models.registry import SUPPORTED, model_class, read_hf_config
from tests.engine.checkpoints import make_config

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64}


def refused(source: Any) -> str:
    with pytest.raises(ModelLoadError) as caught:
        read_hf_config(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_dict_and_a_file_give_the_same_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert read_hf_config(tmp_path).to_dict() == read_hf_config(LLAMA).to_dict()
    assert read_hf_config(str(tmp_path)).hidden_size == 64


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_every_supported_architecture_has_its_class(architecture: str) -> None:
    config = read_hf_config({"architectures": [architecture]})
    assert model_class(config).__name__ == architecture


def test_the_model_type_stands_in_for_absent_architectures() -> None:
    assert model_class(make_config("qwen3")).__name__ == "Qwen3ForCausalLM"


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_both_spellings_of_dtype(key: str) -> None:
    assert read_hf_config(LLAMA | {key: "bfloat16"}).dtype == torch.bfloat16


def test_an_unknown_architecture_is_refused_with_the_list() -> None:
    message = refused({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"})
    assert "GPT2LMHeadModel" in message
    assert all(name in message for name in SUPPORTED)


def test_a_config_without_any_architecture_is_refused() -> None:
    assert "of model_type 'gpt2'" in refused({"model_type": "gpt2"})


def test_a_quantized_checkpoint_is_refused() -> None:
    message = refused(LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    assert "'gptq'" in message


def test_a_missing_folder_and_a_hub_name_are_refused(tmp_path: Path) -> None:
    assert "is not a folder" in refused(tmp_path / "absent")
    assert "Qwen/Qwen3-0.6B is not a folder" in refused("Qwen/Qwen3-0.6B")


def test_a_folder_without_or_with_a_broken_config_is_refused(tmp_path: Path) -> None:
    assert "has no config.json" in refused(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ')
    assert "is not valid JSON" in refused(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    assert "does not hold a JSON object" in refused(tmp_path)


@pytest.mark.parametrize("size", ["three", 0, -1, None, 2.5])
def test_a_size_that_is_none_is_refused_by_name(size: Any) -> None:
    assert "num_hidden_layers" in refused(LLAMA | {"num_hidden_layers": size})


@pytest.mark.parametrize(
    ("architecture", "fields", "words"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("llama", {"num_attention_heads": 4, "num_key_value_heads": 3}, "not a multiple"),
        ("mixtral", {"num_experts_per_tok": 9}, "num_experts_per_tok 9"),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "short_factor": [1.0] * 6,
                    "long_factor": [1.0] * 6,
                }
            },
            "RoPE type 'longrope'",
        ),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "linear",
                    "rope_theta": 1e4,
                    "factor": 2.0,
                    "partial_rotary_factor": 0.5,
                }
            },
            "RoPE rotates 6 of 12",
        ),
    ],
)
def test_what_a_model_cannot_do_is_refused(
    architecture: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelLoadError) as caught:
        load_model(make_config(architecture, **fields), None, "dummy")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rope_parameter_that_is_absent_is_named() -> None:
    fields = make_config("llama").to_dict()
    fields["rope_parameters"] = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}
    with pytest.raises(ModelLoadError, match=r"'llama3'.*factor"):
        load_model(read_hf_config(fields), None, "dummy")
