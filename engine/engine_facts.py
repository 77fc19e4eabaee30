"""What a result must say of the engine that gave it: device, number formats, weights.

Knows an engine that is built. Versions of packages and the machine are known elsewhere.
"""

from typing import Any

import torch

from engine.build import EngineParts, resolve_device
from engine.loader import resolve_dtype


def engine_facts(parts: EngineParts, dtype: str, has_random_weights: bool) -> dict[str, Any]:
    """Plain values, ready for JSON.

    Args:
        parts: The engine.
        dtype: As it was asked for; "auto" is the checkpoint's.
        has_random_weights: Whether no checkpoint was read.
    """
    device = parts.device
    held = parts.model.embedding.weight.dtype
    return {
        "device": str(device),
        "device_name": _name(device),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "torch_threads": torch.get_num_threads(),
        "dtype": _short(resolve_dtype(parts.hf_config, dtype)),
        # a CPU may hold and multiply 16-bit weights as float32
        "weights_held_as": _short(held),
        "kv_cache_dtype": _short(parts.runner.backend.kv_caches[0].dtype),
        "weights": "random" if has_random_weights else "checkpoint",
        "attention_backend": type(parts.runner.backend).__name__,
        "executor": type(parts.executor).__name__,
    }


def _name(device: torch.device) -> str | None:
    """Of a GPU; a CPU's is told with the machine."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def num_cpu_threads(device: str) -> int:
    """Threads that compute a model on the device of that name; 0 where a GPU computes it."""
    return torch.get_num_threads() if resolve_device(device).type == "cpu" else 0
