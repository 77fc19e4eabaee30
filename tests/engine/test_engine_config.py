"""Settings are refused by name, with the limit and the cure."""

from typing import Any

import pytest

from engine.config import EngineConfig
from workbench.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "tpu"}, "device='tpu' must be one of auto, cpu, cuda"),
        ({"kv_cache_dtype": "int8"}, "kv_cache_dtype='int8' must be one of"),
        ({"kv_cache_memory_bytes": 0}, "kv_cache_memory_bytes=0 must be at least 1"),
        ({"cpu_kvcache_space_gib": -1.0}, "cpu_kvcache_space_gib"),
        ({"prompt_lookup_min": 3, "prompt_lookup_max": 2}, "prompt_lookup_max=2 is below"),
        ({"model": {"model_type": "llama"}}, "load_format='auto' needs a folder"),
        ({"cudagraph_capture_sizes": (4, 0)}, "cudagraph_capture_sizes: 0"),
        ({"seed": "x"}, "seed='x' must be of type int"),
    ],
)
def test_a_bad_value_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        EngineConfig(**{"model": "folder"} | settings)


def test_defaults_stand() -> None:
    config = EngineConfig(model="folder")
    assert config.scheduler_config.max_num_seqs == 256
    assert config.cache_config.block_size == 16
