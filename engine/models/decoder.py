"""The decoder layer that all supported models share, and the settings in which they differ.

Knows layers and their names in checkpoints. Does not know Hugging Face configs (the models' files
read those) nor how attention finds its cache.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from engine.attention.backend import AttentionStep
from engine.layers.activation import silu_and_mul
from engine.layers.linear import Linear
from engine.layers.moe import MoeConfig, SparseMoe
from engine.layers.norm import RMSNorm
from engine.layers.weights import Destinations, Placement


@dataclass(frozen=True, slots=True)
class MlpConfig:
    """A dense feed-forward block."""

    intermediate_size: int
    bias: bool = False


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """What a decoder-only model consists of.

    `windows` and `mlps` have one entry a layer; a window counts the tokens attended, the current
    one included, and None attends to all.
    """

    vocab_size: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    windows: tuple[int | None, ...]
    mlps: tuple[MlpConfig | MoeConfig, ...]
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    tie_word_embeddings: bool = False


class Attention(nn.Module):
    """Projections around a step's attention."""

    def __init__(self, config: DecoderConfig, placement: Placement) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.q_size = config.num_heads * config.head_dim
        self.kv_size = config.num_kv_heads * config.head_dim
        parts = {"q_proj": self.q_size, "k_proj": self.kv_size, "v_proj": self.kv_size}
        self.qkv = Linear(config.hidden_size, parts, config.qkv_bias, placement)
        self.output = Linear(
            self.q_size, {"o_proj": config.hidden_size}, config.output_bias, placement
        )
        self.q_norm = self.k_norm = None
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.norm_eps, placement)
            self.k_norm = RMSNorm(config.head_dim, config.norm_eps, placement)

    def destinations(self, layer: str) -> Destinations:
        """Views of the weights by checkpoint name."""
        prefix = f"{layer}.self_attn"
        found = self.qkv.destinations(prefix) | self.output.destinations(prefix)
        if self.q_norm is not None and self.k_norm is not None:
            found |= self.q_norm.destinations(f"{prefix}.q_norm")
            found |= self.k_norm.destinations(f"{prefix}.k_norm")
        return found

    def forward(self, x: Tensor, step: AttentionStep, layer_index: int) -> Tensor:
        """Attend for x [T, hidden]; returns [T, hidden]."""
        qkv = self.qkv(x).view(len(x), -1, self.head_dim)
        kv_heads = self.kv_size // self.head_dim
        q, k, v = qkv.split((self.num_heads, kv_heads, kv_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        attended = step.forward(layer_index, q, k, v)
        return self.output(attended.reshape(len(x), self.q_size))


class Mlp(nn.Module):
    """down(silu(gate x) · up x)."""

    def __init__(self, hidden_size: int, config: MlpConfig, placement: Placement) -> None:
        super().__init__()
        width = config.intermediate_size
        parts = {"gate_proj": width, "up_proj": width}
        self.gate_up = Linear(hidden_size, parts, config.bias, placement)
        self.down = Linear(width, {"down_proj": hidden_size}, config.bias, placement)

    def destinations(self, layer: str) -> Destinations:
        """Views of the weights by checkpoint name."""
        prefix = f"{layer}.mlp"
        return self.gate_up.destinations(prefix) | self.down.destinations(prefix)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x [T, hidden]; returns [T, hidden]."""
        return self.down(silu_and_mul(self.gate_up(x)))


class DecoderLayer(nn.Module):
    """Attention and a feed-forward block, each behind a norm and beside a residual."""

    def __init__(self, config: DecoderConfig, index: int, placement: Placement) -> None:
        super().__init__()
        self.index = index
        self.input_norm = RMSNorm(config.hidden_size, config.norm_eps, placement)
        self.attention = Attention(config, placement)
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps, placement)
        mlp = config.mlps[index]
        self.mlp: Mlp | SparseMoe
        if isinstance(mlp, MoeConfig):
            self.mlp = SparseMoe(config.hidden_size, mlp, placement)
        else:
            self.mlp = Mlp(config.hidden_size, mlp, placement)

    def destinations(self) -> Destinations:
        """Views of the weights by checkpoint name."""
        layer = f"model.layers.{self.index}"
        return (
            self.input_norm.destinations(f"{layer}.input_layernorm")
            | self.attention.destinations(layer)
            | self.mlp_norm.destinations(f"{layer}.post_attention_layernorm")
            | self.mlp.destinations(layer)
        )

    def forward(
        self, x: Tensor | None, residual: Tensor, step: AttentionStep
    ) -> tuple[Tensor, Tensor]:
        """One layer.

        Args:
            x: [T, hidden], what the layer before added; None for the first layer.
            residual: [T, hidden], the sum without it; overwritten.
            step: attention of this step.

        Returns:
            What this layer adds last, and the sum without it.
        """
        if x is None:
            normed = self.input_norm(residual)
        else:
            normed, residual = self.input_norm.add_and_norm(x, residual)
        attended = self.attention(normed, step, self.index)
        normed, residual = self.mlp_norm.add_and_norm(attended, residual)
        return self.mlp(normed), residual
