"""Reads a Hugging Face config.json: sizes by our names, whatever the model calls them.

Knows spellings. It does not know whether the sizes make sense: ModelConfig does.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import ConfigError

DTYPE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "fp8": 1.0, "int8": 1.0}
_DTYPE_NAMES = {"half": "float16", "float": "float32", "bf16": "bfloat16", "fp16": "float16"}
_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def dtype_name(name: str) -> str:
    """The usual name of a data type, e.g. bfloat16 for bf16."""
    return _DTYPE_NAMES.get(name, name)


def read_hf_config(path: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and sizes from a config.json: a file, its folder, or its content as a mapping.

    Fields that do not change sizes are ignored; a nested `text_config` is followed.

    Raises:
        ConfigError: The file cannot be read, lacks a size, or holds one that is no number.
    """
    config, origin = _load(path)
    nested = config.get("text_config")
    if isinstance(nested, dict):
        config = nested
    missing = [key for key in _REQUIRED if key not in config]
    if missing:
        raise ConfigError(
            f"model config {origin} lacks {', '.join(missing)}:"
            " give the config.json of a decoder-only transformer"
        )
    return _name(config, origin), _Fields(config, origin).read()


def _load(path: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    if isinstance(path, Mapping):
        return dict(path), "(a mapping)"
    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"model config {file} does not exist: give a config.json") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"model config {file} cannot be read as JSON: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"model config {file} must hold a JSON object")
    return config, str(file)


def _name(config: Mapping[str, Any], origin: str) -> str:
    named = config.get("_name_or_path") or config.get("name")
    if named:
        return str(named)
    return Path(origin).parent.name if origin.endswith(".json") else str(config.get("model_type"))


class _Fields:
    """The sizes of one config."""

    def __init__(self, config: Mapping[str, Any], origin: str) -> None:
        self._config, self._origin = config, origin

    def read(self) -> dict[str, Any]:
        """Arguments of ModelConfig, by name."""
        config, count = self._config, self._count
        heads = count("num_attention_heads")
        intermediate = count("intermediate_size", default=4 * count("hidden_size"))
        kind = str(config.get("model_type", ""))
        dtype = dtype_name(str(config.get("torch_dtype") or config.get("dtype") or "bfloat16"))
        fields = {
            "num_hidden_layers": count("num_hidden_layers"),
            "hidden_size": count("hidden_size"),
            "num_attention_heads": heads,
            "num_key_value_heads": count("num_key_value_heads", default=heads),
            "head_dim": count("head_dim", default=count("hidden_size") // max(1, heads)),
            "intermediate_size": intermediate,
            "vocab_size": count("vocab_size"),
            "max_position_embeddings": count("max_position_embeddings", default=32768),
            "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
            "attention_bias": bool(config.get("attention_bias", kind in ("qwen2", "qwen2_moe"))),
            "qk_norm": kind.startswith("qwen3") or bool(config.get("qk_norm", False)),
            "sliding_window": self._sliding_window(),
            "dtype": dtype if dtype in DTYPE_BYTES else "bfloat16",
        }
        return fields | self._experts(intermediate)

    def _experts(self, intermediate: int) -> dict[str, int]:
        names = ("num_experts", "num_local_experts", "n_routed_experts")
        experts = next((n for n in map(self._count_or_none, names) if n), 0)
        if not experts:
            return {}
        return {
            "num_experts": experts,
            "num_experts_per_tok": self._count("num_experts_per_tok", default=0),
            "moe_intermediate_size": self._count("moe_intermediate_size", default=intermediate),
            "shared_expert_intermediate_size": self._count(
                "shared_expert_intermediate_size", default=0
            ),
            "num_dense_layers": self._num_dense_layers(),
        }

    def _sliding_window(self) -> int | None:
        """The window that all layers share; None where there is none, or only some layers slide.

        Such a mixed model is told apart with `cache.hybrid_window`.
        """
        config = self._config
        kinds = set(config.get("layer_types") or ())
        if not config.get("use_sliding_window", True) or "full_attention" in kinds:
            return None
        if (self._count_or_none("sliding_window_pattern") or 1) > 1:
            return None
        return self._count_or_none("sliding_window") or None

    def _num_dense_layers(self) -> int:
        """Layers without experts in a mixture-of-experts model."""
        first = self._count_or_none("first_k_dense_replace")
        if first:
            return first
        layers, every = self._count("num_hidden_layers"), self._count("decoder_sparse_step", 1)
        sparse = layers // max(1, every)
        named = {int(n) for n in self._config.get("mlp_only_layers") or ()}
        return layers - sparse + sum(1 for n in named if n < layers and not (n + 1) % max(1, every))

    def _count(self, name: str, default: int | None = None) -> int:
        value = self._count_or_none(name)
        if value:
            return value
        return (value or 0) if default is None else default

    def _count_or_none(self, name: str) -> int | None:
        value = self._config.get(name)
        if value is None:
            return None
        try:
            return int(value)
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(
                f"model config {self._origin} holds {name}={value!r}: it must be a whole number"
            ) from None
