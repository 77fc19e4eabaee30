"""Whether a measured table is that of the model and the GPU that are simulated.

Knows what profiles say of themselves (`meta.yaml`, a column `device`). Where a table says nothing,
nothing is checked.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulator.model_config import ModelConfig
from workbench.errors import ConfigError

_ALLOW = "or set cost_model.allow_mismatch=true to use it all the same"
# a profiler emulates a tensor parallel size by dividing these
_SIZES = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")
_DTYPES = {"bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "float32": 4, "fp8": 1}


def check_gpu(hardware: str, names: Sequence[str], table: Path) -> None:
    """Refuse a table of another GPU.

    Args:
        hardware: Name of the simulated GPU, e.g. "rtx_pro_6000".
        names: What the table calls its GPU, e.g. "NVIDIA RTX PRO 6000 Blackwell"; one has to fit.

    Raises:
        ConfigError: No name holds all words and numbers of `hardware`.
    """
    known = [name for name in names if name]
    words, letters = _words(hardware), _letters(hardware)
    if not known or any(words <= _words(n) or letters == _letters(n) for n in known):
        return
    raise ConfigError(
        f"table {table} was measured on {known[0]}, not on hardware.name={hardware}:"
        f" choose the hardware of the table, {_ALLOW}"
    )


def check_profile(model: ModelConfig, hardware: str, path: Path) -> None:
    """Refuse a layer-wise profile of another model, data type or GPU.

    The sizes of a layer tell models apart; where a profile lacks them, its name has to begin as
    the model's does.

    Args:
        path: Folder of the profile, with or without the folder of one tensor parallel size.

    Raises:
        ConfigError: `meta.yaml` cannot be read, or tells of something else.
    """
    meta = _meta(path)
    check_gpu(hardware, [str(meta.get("gpu") or ""), str(meta.get("hardware") or "")], path)
    for what, ours, theirs in (*_sizes(model, meta), *_dtypes(model, meta)):
        if ours != theirs:
            raise ConfigError(
                f"profile {path} was measured with {what}={theirs}, and {model.name} has {ours}:"
                f" give the profile of this model, {_ALLOW}"
            )


def _meta(path: Path) -> dict[str, Any]:
    import yaml

    file = next((f / "meta.yaml" for f in (path, path.parent) if (f / "meta.yaml").is_file()), None)
    if file is None:
        return {}
    try:
        meta = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"profile file {file} cannot be read as YAML: {reason}") from None
    return meta if isinstance(meta, dict) else {}


def _sizes(model: ModelConfig, meta: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(what, ours, theirs): the layer's sizes, or the name where none is told."""
    engine = meta.get("engine_effective") or {}
    told = engine.get("hf_overrides") or {}
    # the overrides are those of the last degree that was profiled
    ranks = [int(n) for n in meta.get("tp_degrees") or () if isinstance(n, int)] or [1]
    share = f" / {ranks[-1]}" if ranks[-1] > 1 else ""
    pairs = [
        (name + share, max(1, getattr(model, name) // ranks[-1]), told[name])
        for name in _SIZES
        if isinstance(told.get(name), int)
    ]
    if pairs:
        return pairs
    theirs = str(meta.get("model") or "").rpartition("/")[2].lower()
    ours = model.name.rpartition("/")[2].lower()
    same = not theirs or theirs.startswith(ours)
    return [] if same else [("model", model.name, meta["model"])]


def _dtypes(model: ModelConfig, meta: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Bytes of a weight and of a key, where the profile tells its data types.

    A profile whose engine was not told a type of keys measured that of the weights.
    """
    variant = str(meta.get("variant") or "").lower()
    weights, _, keys = variant.partition("-kv")
    engine = meta.get("engine_effective") or {}
    cached = str(engine.get("kv_cache_dtype") or "auto").lower()
    keys = keys or (weights if cached == "auto" else cached.partition("_")[0])
    pairs = [
        ("bytes of a weight", _DTYPES.get(model.dtype), _DTYPES.get(weights)),
        ("bytes of a key", _DTYPES.get(model.kv_cache_dtype), _DTYPES.get(keys)),
    ]
    return [pair for pair in pairs if None not in pair]


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _words(name: str) -> set[str]:
    """Words and numbers of a GPU's name: "rtx4090" and "GeForce RTX 4090" share theirs."""
    return set(re.findall(r"[a-z]+|\d+", name.lower()))
