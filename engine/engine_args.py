"""Flat keyword arguments, as vLLM's LLM takes them, as one EngineConfig.

Every field of the three configs is a keyword; whose it is follows from its name. This file knows
no values but those of settings that exist for vLLM's users and can mean one thing only here.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import fields
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from engine.config import EngineConfig
from engine.errors import ModelLoadError
from engine.tokenizer import has_tokenizer
from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError

ONE_DEVICE = "this engine runs on one device"
NO_DOWNLOAD = "the checkpoint is a folder on disk"
NO_LORA = "adapters are not supported"
TEXT_ONLY = "models and prompts are text only"
ONLY_VALUES: dict[str, tuple[tuple[Any, ...], str]] = {
    "trust_remote_code": ((False,), "code that comes with a checkpoint is never run"),
    "tensor_parallel_size": ((1,), ONE_DEVICE),
    "pipeline_parallel_size": ((1,), ONE_DEVICE),
    "data_parallel_size": ((1,), ONE_DEVICE),
    "distributed_executor_backend": ((None,), ONE_DEVICE),
    "disable_custom_all_reduce": ((False, True), ONE_DEVICE),
    "enable_expert_parallel": ((False,), ONE_DEVICE),
    "quantization": ((None,), "weights are taken as they are"),
    "enable_lora": ((False, None), NO_LORA),
    "lora_request": ((None,), NO_LORA),
    "revision": ((None,), NO_DOWNLOAD),
    "code_revision": ((None,), NO_DOWNLOAD),
    "tokenizer_revision": ((None,), NO_DOWNLOAD),
    "download_dir": ((None,), NO_DOWNLOAD),
    "hf_token": ((None,), NO_DOWNLOAD),
    "tokenizer_mode": (("auto",), "the tokenizer is what transformers makes of its folder"),
    "runner": (("auto", "generate"), "this engine generates text"),
    "task": ((None, "auto", "generate"), "this engine generates text"),
    "disable_log_stats": ((True,), "an engine logs nothing while it runs"),
    # vLLM's own defaults, old and new
    "swap_space": ((None, 0, 4), "set preemption_mode='swap' and swap_space_gib"),
    "cpu_offload_gb": ((0,), "weights stay on the device"),
    "speculative_config": ((None,), "set num_speculative_tokens for drafts from n-grams"),
    "compilation_config": ((None,), "set enforce_eager or cudagraph_capture_sizes"),
    "limit_mm_per_prompt": ((None,), TEXT_ONLY),
    "mm_processor_kwargs": ((None,), TEXT_ONLY),
}
"""vLLM's settings by name: the values that mean what this engine does, and why no others do."""
NESTED = ("scheduler_config", "cache_config")


def make_engine_config(
    model: str | PathLike[str] | Mapping[str, Any], **settings: Any
) -> EngineConfig:
    """The config that flat keywords describe.

    Args:
        model: As in EngineConfig; folders may be path objects, dtype torch's, seed None (the
            default).
        settings: Fields of EngineConfig, SchedulerConfig and CacheConfig, by their names; and
            hf_overrides, fields of the model's config to change, with load_format="dummy".

    Raises:
        ConfigError: An unknown name (the nearest known ones are told), or a value out of range.
        ModelLoadError: hf_overrides of a folder without config.json.
    """
    model, settings = _plain(model, settings)
    overrides = settings.pop("hf_overrides", None)
    if overrides:
        model, settings = _override(model, overrides, settings)
    owners = {EngineConfig: {}, SchedulerConfig: {}, CacheConfig: {}}  # type: ignore[var-annotated]
    names = {f.name: owner for owner in owners for f in fields(owner) if f.name not in NESTED}
    for name, value in settings.items():
        if name in names:
            owners[names[name]][name] = value
        elif name in ONLY_VALUES:
            allowed, reason = ONLY_VALUES[name]
            if value not in allowed:
                raise ConfigError(f"{name}={value!r} is not possible: {reason}; leave it out")
        else:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            hint = (
                f"did you mean {' or '.join(near)}?" if near else "see EngineConfig for the names"
            )
            raise ConfigError(f"unknown setting {name}={value!r}: {hint}")
    return EngineConfig(
        model=model,
        scheduler_config=SchedulerConfig(**owners[SchedulerConfig]),
        cache_config=CacheConfig(**owners[CacheConfig]),
        **owners[EngineConfig],
    )


def _plain(
    model: str | PathLike[str] | Mapping[str, Any], settings: dict[str, Any]
) -> tuple[str | Mapping[str, Any], dict[str, Any]]:
    """The same without path objects, dtypes of torch and a seed of None."""
    plain = {
        name: fspath(value) if isinstance(value, PathLike) else value
        for name, value in settings.items()
        if (name, value) != ("seed", None)
    }
    if type(plain.get("dtype")).__module__ == "torch":
        plain["dtype"] = str(plain["dtype"]).removeprefix("torch.")
    return fspath(model) if isinstance(model, PathLike) else model, plain


def _override(
    model: str | Mapping[str, Any], overrides: Mapping[str, Any], settings: dict[str, Any]
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The model as config fields with some of them changed, and the settings that go with it."""
    if settings.get("load_format") != "dummy":
        raise ConfigError(
            f"hf_overrides={dict(overrides)!r} would not fit the weights: set load_format='dummy', "
            "or change config.json in a copy of the checkpoint"
        )
    if not isinstance(model, str):
        return {**model, **overrides}, settings
    try:
        config = json.loads((Path(model) / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"{model}/config.json cannot be read ({error}): hf_overrides changes its fields"
        ) from error
    if settings.get("tokenizer") is None and has_tokenizer(model):
        settings = settings | {"tokenizer": model}
    return {**config, **overrides}, settings
