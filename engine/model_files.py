"""What a checkpoint's folder says about text and sampling, beside its weights.

Finds the tokenizer, the end-of-sequence tokens and the defaults of generation_config.json. Knows
file names; knows no weights.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.config import EngineConfig
from engine.errors import ModelLoadError
from engine.input_processor import EosTokens
from engine.tokenizer import has_tokenizer, load_tokenizer
from workbench.errors import ConfigError
from workbench.sampling_params import SamplingParams

GENERATION_CONFIG = "generation_config.json"
SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def find_tokenizer(config: EngineConfig) -> tuple[Any, str]:
    """The tokenizer, or None with the reason why there is none.

    A checkpoint without tokenizer still serves token ids; a tokenizer that was named must exist.

    Raises:
        ModelLoadError: The one that was named is missing, or the one found cannot be read.
    """
    if config.skip_tokenizer_init:
        return None, "skip_tokenizer_init=True"
    if config.tokenizer is not None:
        return load_tokenizer(config.tokenizer), ""
    if not isinstance(config.model, str):
        return None, "a model given as a dict has no tokenizer (name one with tokenizer=)"
    if not has_tokenizer(config.model):
        return None, f"{config.model} has no tokenizer (name another folder with tokenizer=)"
    return load_tokenizer(config.model), ""


def find_eos_tokens(
    model: str | Mapping[str, Any], hf_config: Any, tokenizer: Any = None
) -> EosTokens:
    """End-of-sequence tokens: the tokenizer's first, then those of the generation config.

    Args:
        model: Folder or config fields, as in EngineConfig.
        hf_config: The model's config, which speaks where there is no generation config.
        tokenizer: Of transformers, or None.
    """
    told = _generation_config(model).get("eos_token_id")
    if told is None:
        told = getattr(hf_config, "eos_token_id", None)
    token_ids = [told] if isinstance(told, int) else list(told or ())
    primary = getattr(tokenizer, "eos_token_id", None)
    if primary is None and token_ids:
        primary = token_ids[0]
    return EosTokens(primary, tuple(i for i in dict.fromkeys(token_ids) if i != primary))


def sampling_defaults(model: str | Mapping[str, Any]) -> SamplingParams:
    """Sampling parameters for requests that bring none: those of the generation config.

    Raises:
        ModelLoadError: It asks for what cannot be sampled.
    """
    values = _generation_config(model)
    chosen = {name: values[name] for name in SAMPLING_FIELDS if values.get(name) is not None}
    if values.get("max_new_tokens") is not None:
        chosen["max_tokens"] = values["max_new_tokens"]
    try:
        return SamplingParams(**chosen)
    except ConfigError as error:
        raise ModelLoadError(f"{model}/{GENERATION_CONFIG}: {error}: correct the file") from error


def _generation_config(model: str | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(model, str):
        return {}
    path = Path(model) / GENERATION_CONFIG
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ModelLoadError(f"{path} is not JSON ({error}): correct or remove it") from error
    return values if isinstance(values, dict) else {}
