"""The shape of a transformer: what its Hugging Face config.json says, and what follows from it.

Knows parameter counts and bytes. It does not know how fast anything runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from simulator.bounds import check_count
from simulator.hf_config import DTYPE_BYTES, dtype_name, read_hf_config
from simulator.parallel import ParallelConfig
from workbench.errors import ConfigError

PRESETS = Path(__file__).parent / "model_presets"
# beyond any model by a factor of a hundred or so; a mistyped size must not fill the memory
_LARGEST = {
    "num_hidden_layers": 10_000,
    "hidden_size": 10**6,
    "num_attention_heads": 10**5,
    "num_key_value_heads": 10**5,
    "head_dim": 10**5,
    "intermediate_size": 10**7,
    "vocab_size": 10**8,
    "max_position_embeddings": 10**9,
}
_LARGEST_OR_NONE = {
    "num_experts": 10**5,
    "num_experts_per_tok": 10**5,
    "moe_intermediate_size": 10**7,
    "shared_expert_intermediate_size": 10**7,
    "num_dense_layers": 10_000,
}
_SINGLE = ParallelConfig()


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder-only transformer with grouped-query attention, dense or mixture-of-experts.

    Field names are those of Hugging Face. `num_experts` is 0 for a dense model; `dtype` is that of
    weights and activations, `kv_cache_dtype` that of the KV cache.

    Raises:
        ConfigError: A size that is no whole number, below 1 or absurd, heads that do not divide, an
            unknown dtype.
    """

    name: str
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int = 32768
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    num_dense_layers: int = 0
    dtype: str = "bfloat16"
    kv_cache_dtype: str = "bfloat16"
    path: str | None = None

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            check_count(f"model.{name}", getattr(self, name), at_most=largest, of=self.name)
        for name, largest in _LARGEST_OR_NONE.items():
            check_count(f"model.{name}", getattr(self, name), 0, largest, of=self.name)
        if self.sliding_window is not None:
            check_count("model.sliding_window", self.sliding_window, of=self.name)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads={self.num_attention_heads} of {self.name} must be a multiple"
                f" of num_key_value_heads={self.num_key_value_heads}"
            )
        fewest = min(1, self.num_experts)
        if not fewest <= self.num_experts_per_tok <= self.num_experts:
            raise ConfigError(
                f"num_experts_per_tok={self.num_experts_per_tok} of {self.name} must lie between"
                f" {fewest} and num_experts={self.num_experts}"
            )
        if self.num_experts and not self.moe_intermediate_size:
            raise ConfigError(
                f"moe_intermediate_size=0 of {self.name} must be at least 1 with"
                f" num_experts={self.num_experts}"
            )
        if self.num_dense_layers > self.num_hidden_layers:
            raise ConfigError(
                f"num_dense_layers={self.num_dense_layers} of {self.name} must be at most"
                f" num_hidden_layers={self.num_hidden_layers}"
            )
        for name in ("dtype", "kv_cache_dtype"):
            if getattr(self, name) not in DTYPE_BYTES:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} of {self.name} must be one of"
                    f" {', '.join(DTYPE_BYTES)}"
                )

    @classmethod
    def from_hf_config(
        cls,
        path: str | Path | Mapping[str, Any],
        name: str | None = None,
        dtype: str = "auto",
        kv_cache_dtype: str = "auto",
    ) -> "ModelConfig":
        """Read a config.json (a file, its folder, or its content as a mapping).

        Fields that do not change sizes are ignored; a nested `text_config` is followed.

        Raises:
            ConfigError: The file cannot be read or lacks a size.
        """
        own_name, fields = read_hf_config(path)
        folder = None if isinstance(path, Mapping) else str(Path(path))
        model = cls(name=name or own_name, path=folder, **fields)
        if dtype != "auto":
            model = replace(model, dtype=dtype_name(dtype))
        kv_dtype = model.dtype if kv_cache_dtype == "auto" else kv_cache_dtype
        return replace(model, kv_cache_dtype=dtype_name(kv_dtype))

    @property
    def num_moe_layers(self) -> int:
        """Layers whose feed-forward part is a mixture of experts."""
        return self.num_hidden_layers - self.num_dense_layers if self.num_experts else 0

    @property
    def qkv_size(self) -> int:
        """Output width of the fused query, key and value projection."""
        return (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim

    @property
    def attention_parameters(self) -> int:
        """Of one layer: projections, biases and the two norms, with the norms of q and k."""
        total = self.hidden_size * (self.qkv_size + self.num_attention_heads * self.head_dim)
        total += 2 * self.hidden_size
        if self.attention_bias:
            total += self.qkv_size
        if self.qk_norm:
            total += 2 * self.head_dim
        return total

    @property
    def expert_parameters(self) -> int:
        """Of one routed expert: gate, up and down."""
        return 3 * self.hidden_size * self.moe_intermediate_size

    @property
    def dense_mlp_parameters(self) -> int:
        """Of one dense feed-forward part."""
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def router_parameters(self) -> int:
        """Of one mixture-of-experts layer: the router and the expert that all tokens share."""
        shared = 3 * self.hidden_size * self.shared_expert_intermediate_size
        return self.hidden_size * self.num_experts + shared

    @property
    def embedding_parameters(self) -> int:
        return self.vocab_size * self.hidden_size

    @property
    def num_parameters(self) -> int:
        """All parameters; tied embeddings are counted once."""
        moe = self.num_experts * self.expert_parameters + self.router_parameters
        dense_layers = self.num_hidden_layers - self.num_moe_layers
        total = self.num_hidden_layers * self.attention_parameters
        total += self.num_moe_layers * moe + dense_layers * self.dense_mlp_parameters
        embeddings = self.embedding_parameters * (1 if self.tie_word_embeddings else 2)
        return total + embeddings + self.hidden_size

    @property
    def num_active_parameters(self) -> int:
        """Parameters that one token passes through."""
        idle = max(0, self.num_experts - self.num_experts_per_tok)
        return self.num_parameters - self.num_moe_layers * idle * self.expert_parameters

    def layers_per_stage(self, parallel: ParallelConfig = _SINGLE) -> int:
        """Layers of the largest pipeline stage."""
        return ceil(self.num_hidden_layers / parallel.pipeline_parallel_size)

    def kv_heads_per_rank(self, parallel: ParallelConfig = _SINGLE) -> int:
        """Key-value heads of a GPU; beyond one head a GPU, heads are copied."""
        return max(1, self.num_key_value_heads // parallel.tensor_parallel_size)

    def check_parallel(self, parallel: ParallelConfig) -> None:
        """Refuse degrees that do not divide the model, by name.

        Raises:
            ConfigError: Heads, layers or experts that cannot be divided.
        """
        tp, pp = parallel.tensor_parallel_size, parallel.pipeline_parallel_size
        if self.num_attention_heads % tp:
            raise ConfigError(
                f"tensor_parallel_size={tp} must divide the {self.num_attention_heads} attention"
                f" heads of {self.name}"
            )
        if max(tp, self.num_key_value_heads) % min(tp, self.num_key_value_heads):
            raise ConfigError(
                f"tensor_parallel_size={tp} must divide the {self.num_key_value_heads} key-value"
                f" heads of {self.name}, or be a multiple of them"
            )
        if pp > self.num_hidden_layers:
            raise ConfigError(
                f"pipeline_parallel_size={pp} must be at most the {self.num_hidden_layers} layers"
                f" of {self.name}"
            )
        group = parallel.expert_group_size
        if parallel.enable_expert_parallel and self.num_experts and self.num_experts < group:
            raise ConfigError(
                f"expert parallelism over {group} GPUs needs at least {group} experts;"
                f" {self.name} has {self.num_experts}: lower the tensor or data parallel size"
            )

    def weight_bytes(self, parallel: ParallelConfig = _SINGLE) -> float:
        """Bytes of the weights on the fullest GPU."""
        tp, stages = parallel.tensor_parallel_size, parallel.pipeline_parallel_size
        layers = self.layers_per_stage(parallel)
        moe_layers = min(layers, self.num_moe_layers)
        experts = self.num_experts * self.expert_parameters / parallel.expert_group_size
        if parallel.enable_expert_parallel:
            experts = ceil(self.num_experts / parallel.expert_group_size) * self.expert_parameters
        total = layers * self.attention_parameters / tp
        total += (layers - moe_layers) * self.dense_mlp_parameters / tp
        total += moe_layers * (experts + self.router_parameters)
        matrices = 1 if self.tie_word_embeddings or stages > 1 else 2
        total += matrices * self.embedding_parameters / tp + self.hidden_size
        return total * DTYPE_BYTES[self.dtype]

    def kv_bytes_per_token(self, parallel: ParallelConfig = _SINGLE) -> float:
        """Bytes of keys and values of one token on one GPU."""
        heads = self.kv_heads_per_rank(parallel)
        per_layer = 2 * heads * self.head_dim * DTYPE_BYTES[self.kv_cache_dtype]
        return self.layers_per_stage(parallel) * per_layer


def load_model_preset(name: str, dtype: str = "auto", kv_cache_dtype: str = "auto") -> ModelConfig:
    """One of the models that ship with the project.

    Args:
        name: A folder of `model_presets`, e.g. "llama3_8b".
        dtype: Of weights and activations; "auto" is the checkpoint's own.
        kv_cache_dtype: "auto" is the dtype of the weights' checkpoint.

    Raises:
        ConfigError: No such preset.
    """
    folder = PRESETS / name
    if not (folder / "config.json").is_file():
        known = ", ".join(sorted(entry.name for entry in PRESETS.iterdir() if entry.is_dir()))
        raise ConfigError(
            f"model preset {name!r} is unknown: choose one of {known},"
            " or model=hf_config model.path=CONFIG_JSON"
        )
    return ModelConfig.from_hf_config(folder, None, dtype, kv_cache_dtype)
