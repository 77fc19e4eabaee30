"""Which architectures there are, and how a config file becomes the config of one of them.

Knows config.json and the names of architectures. Does not read weights.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from engine.models.causal_lm import CausalLM

# architecture: (model_type of its configs, module)
SUPPORTED = {
    "LlamaForCausalLM": ("llama", "engine.models.llama"),
    "MistralForCausalLM": ("mistral", "engine.models.mistral"),
    "Qwen2ForCausalLM": ("qwen2", "engine.models.qwen2"),
    "Qwen3ForCausalLM": ("qwen3", "engine.models.qwen3"),
    "MixtralForCausalLM": ("mixtral", "engine.models.mixtral"),
    "Qwen3MoeForCausalLM": ("qwen3_moe", "engine.models.qwen3_moe"),
}
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


def read_hf_config(source: str | Path | dict[str, Any]) -> "PretrainedConfig":
    """The config of a checkpoint folder, or of the fields of a config.json.

    Both spellings of RoPE settings are read: rope_parameters, and rope_theta with rope_scaling.

    Raises:
        ModelLoadError: no such folder, no or a broken config.json, an architecture that is not
            supported, a quantized checkpoint.
    """
    fields = dict(source) if isinstance(source, dict) else _read_config_file(Path(source))
    architecture = _architecture(fields)
    if fields.get("quantization_config") is not None:
        method = dict(fields["quantization_config"]).get("quant_method", "unknown")
        raise ModelLoadError(
            f"quantization_config (method {method!r}) is not supported: use a checkpoint in "
            "bfloat16, float16 or float32"
        )
    from transformers import CONFIG_MAPPING

    fields |= {"model_type": SUPPORTED[architecture][0], "architectures": [architecture]}
    try:
        hf_config = CONFIG_MAPPING[fields["model_type"]].from_dict(fields)
    except Exception as error:  # the config classes raise errors of many kinds
        reason = " ".join(str(error).split())
        raise ModelLoadError(f"config.json is not one of {architecture}: {reason}") from error
    for name in SIZES:
        size = getattr(hf_config, name)
        if not isinstance(size, int) or size < 1:
            raise ModelLoadError(f"{name} {size!r} is not a positive integer: correct config.json")
    return hf_config


def model_class(hf_config: "PretrainedConfig") -> "type[CausalLM]":
    """The class that runs models with this config.

    Raises:
        ModelLoadError: the architecture is not supported.
    """
    architecture = _architecture(hf_config.to_dict())
    found: type[CausalLM] = getattr(import_module(SUPPORTED[architecture][1]), architecture)
    return found


def _read_config_file(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ModelLoadError(
            f"{folder} is not a folder: download the checkpoint and name the folder that holds "
            "its config.json"
        )
    path = folder / "config.json"
    if not path.is_file():
        raise ModelLoadError(
            f"{folder} has no config.json: name the folder of a Hugging Face checkpoint"
        )
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{path} is not valid JSON ({error}): download it again") from None
    if not isinstance(fields, dict):
        raise ModelLoadError(f"{path} does not hold a JSON object: download it again")
    return fields


def _architecture(fields: dict[str, Any]) -> str:
    """The first architecture named that is supported; without names, that of the model_type."""
    names = fields.get("architectures") or [
        name for name, (kind, _) in SUPPORTED.items() if kind == fields.get("model_type")
    ]
    for name in names:
        if name in SUPPORTED:
            return str(name)
    named = ", ".join(names) or f"of model_type {fields.get('model_type')!r}"
    raise ModelLoadError(f"the architecture {named} is not supported: {', '.join(SUPPORTED)} are")
