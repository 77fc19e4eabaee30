"""What a user may set about the real engine: model, device, and the two configs of the core.

Names are vLLM's. This file checks values one by one; what they mean together with a model is
decided where the engine is built.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.config import CacheConfig, SchedulerConfig, at_least, check_types, one_of
from workbench.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
KV_CACHE_DTYPES = ("auto", "fp8")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """One engine.

    Attributes:
        model: Folder of a Hugging Face checkpoint, or the fields of a config.json (then with
            load_format="dummy").
        tokenizer: Folder of the tokenizer; None: that of the model.
        skip_tokenizer_init: Take and give token ids only.
        dtype: "auto" (the config's), "float32", "float16" or "bfloat16".
        load_format: "auto", "safetensors" or "dummy" (random weights).
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        attention_backend: "auto", "triton", "torch" or "reference".
        enforce_eager: Capture no CUDA graphs.
        cudagraph_capture_sizes: Batch sizes to capture; None: 1, 2, 4, then multiples of 8 and 16.
        seed: Of dummy weights and of requests that bring no seed.
        kv_cache_dtype: "auto" (the model's) or "fp8" (e4m3, Triton backend only).
        kv_cache_memory_bytes: Device memory of the KV cache; None: measured.
        cpu_kvcache_space_gib: Memory of the KV cache on a CPU, GiB; None: what max_num_seqs
            requests of max_model_len tokens can use, at most 4 GiB and half of the free memory.
        prompt_lookup_min, prompt_lookup_max: Shortest and longest n-gram that the n-gram proposer
            looks for, where num_speculative_tokens is set.
        scheduler_config, cache_config: Settings of the core. max_model_len=None is the model's own
            limit; windows follow the model and need not be set.
    """

    model: Mapping[str, Any] | str
    tokenizer: str | None = None
    skip_tokenizer_init: bool = False
    dtype: str = "auto"
    load_format: str = "auto"
    device: str = "auto"
    attention_backend: str = "auto"
    enforce_eager: bool = False
    cudagraph_capture_sizes: tuple[int, ...] | None = None
    seed: int = 0
    kv_cache_dtype: str = "auto"
    kv_cache_memory_bytes: int | None = None
    cpu_kvcache_space_gib: float | None = None
    prompt_lookup_min: int = 2
    prompt_lookup_max: int = 4
    scheduler_config: SchedulerConfig = field(default_factory=SchedulerConfig)
    cache_config: CacheConfig = field(default_factory=CacheConfig)

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "kv_cache_memory_bytes", "prompt_lookup_min")
        at_least(self, 0, "cpu_kvcache_space_gib")
        one_of(self, "kv_cache_dtype", KV_CACHE_DTYPES)
        if self.device.partition(":")[0] not in DEVICES:
            raise ConfigError(f"device={self.device!r} must be one of {', '.join(DEVICES)}")
        if self.prompt_lookup_max < self.prompt_lookup_min:
            raise ConfigError(
                f"prompt_lookup_max={self.prompt_lookup_max} is below "
                f"prompt_lookup_min={self.prompt_lookup_min}: raise the first or lower the second"
            )
        if not isinstance(self.model, str) and self.load_format != "dummy":
            raise ConfigError(
                f"load_format={self.load_format!r} needs a folder with weights, and model is a "
                "dict: name the folder, or use load_format='dummy'"
            )
        for size in self.cudagraph_capture_sizes or ():
            if size < 1:
                raise ConfigError(f"cudagraph_capture_sizes: {size} must be at least 1")
