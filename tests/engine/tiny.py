"""Tiny models beside transformers' answers to a fixed set of prompts, made once a test process."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.engine.checkpoints import make_config, make_model, save_model
from tests.engine.harness import greedy_with_transformers

NUM_TOKENS = 14
PROMPT_LENGTHS = (1, 2, 15, 16, 17, 31, 48, 64, 77, 100)
SHARED_PREFIX = 40
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"head_dim": 16}),
    # every layer slides
    "mistral": ("mistral", {}),
    # the upper layers slide: two KV-cache groups
    "hybrid": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    ),
    "qwen3_moe": ("qwen3_moe", {}),
}
SEED_OF = {"qwen3_moe": 2}


@dataclass(frozen=True)
class Tiny:
    """A checkpoint, prompts, and what transformers answers greedily to each of them alone."""

    folder: Path
    model: Any
    prompts: list[list[int]]
    answers: list[list[int]]


_FOLDERS: list[TemporaryDirectory[str]] = []


@cache
def tiny(name: str) -> Tiny:
    """The model called `name`; the last three prompts share their beginning."""
    architecture, sizes = MODELS[name]
    model = make_model(make_config(architecture, **sizes), seed=SEED_OF.get(name, 1))
    folder = TemporaryDirectory()
    _FOLDERS.append(folder)
    save_model(Path(folder.name), model)
    rng = np.random.default_rng(2)
    prompts = [rng.integers(0, 256, length).tolist() for length in PROMPT_LENGTHS]
    beginning = rng.integers(0, 256, SHARED_PREFIX).tolist()
    prompts += [beginning + rng.integers(0, 256, length).tolist() for length in (1, 9, 30)]
    answers = greedy_with_transformers(model, prompts, NUM_TOKENS)
    return Tiny(Path(folder.name), model, prompts, answers)
