"""A decoder-only language model over a step's attention.

Knows the way from token ids to logits and where a checkpoint's tensors go. What distinguishes one
architecture from another is in `decoder_config`, which each of them provides.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engine.attention.backend import AttentionSpec, AttentionStep
from engine.layers.embedding import Embedding
from engine.layers.linear import Linear
from engine.layers.moe import SparseMoe
from engine.layers.norm import RMSNorm
from engine.layers.rotary import cos_sin_table
from engine.layers.weights import Destinations, Placement
from engine.models.decoder import DecoderConfig, DecoderLayer

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class CausalLM(nn.Module, ABC):
    """Token ids and positions to hidden states to logits.

    Attributes:
        hf_config: the config of the checkpoint.
        attention_specs: one a layer, in order.
        cos_sin_cache: [max_position_embeddings, head_dim] float32 on the model's device.
        vocab_size: width of the logits.
    """

    def __init__(self, hf_config: "PretrainedConfig", placement: Placement) -> None:
        """Allocate parameters without values.

        Raises:
            ModelLoadError: the config asks for what the model cannot do.
        """
        super().__init__()
        config = self.decoder_config(hf_config)
        self.hf_config = hf_config
        self.vocab_size = config.vocab_size
        self.tie_word_embeddings = config.tie_word_embeddings
        self.attention_specs = attention_specs(config)
        self.cos_sin_cache: Tensor = cos_sin_table(hf_config, config.head_dim).to(placement.device)
        self.embedding = Embedding(config.vocab_size, config.hidden_size, placement)
        self.layers = nn.ModuleList(
            DecoderLayer(config, index, placement) for index in range(len(config.mlps))
        )
        self.norm = RMSNorm(config.hidden_size, config.norm_eps, placement)
        head = {"lm_head": config.vocab_size}
        if config.tie_word_embeddings:
            placement = replace(placement, device=torch.device("meta"))
        self.head = Linear(config.hidden_size, head, False, placement)
        if config.tie_word_embeddings:
            self.head.weight = self.embedding.weight

    @staticmethod
    @abstractmethod
    def decoder_config(hf_config: "PretrainedConfig") -> DecoderConfig:
        """What the architecture makes of a Hugging Face config."""

    def destinations(self) -> Destinations:
        """Views of all weights by checkpoint name."""
        found = self.embedding.destinations("model.embed_tokens")
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            found |= layer.destinations()
        found |= self.norm.destinations("model.norm")
        if not self.tie_word_embeddings:
            found |= self.head.destinations("")
        return found

    @property
    def supports_cuda_graph(self) -> bool:
        """Whether its layers never wait for the device, so that a step can be captured."""
        return not any(
            module.waits_for_device for module in self.modules() if isinstance(module, SparseMoe)
        )

    def num_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(parameter.nbytes for parameter in self.parameters())

    def forward(self, token_ids: Tensor, positions: Tensor, step: AttentionStep) -> Tensor:
        """Run the layers over a flattened batch.

        Args:
            token_ids: [T] int64.
            positions: [T] int64, part of the interface for models whose layers need them; the
                rotation is the step's.
            step: attention of this step.

        Returns:
            [T, hidden], normalised.
        """
        x, residual = None, self.embedding(token_ids)
        for layer in self.layers:
            x, residual = layer(x, residual, step)
        return self.norm(residual if x is None else residual.add_(x))

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, vocab_size] float32 of hidden [N, hidden]."""
        return self.head(hidden).float()


def attention_specs(config: DecoderConfig) -> list[AttentionSpec]:
    """One a layer; where full and window layers mix, the window layers are KV-cache group 1."""
    is_mixed = len({window is None for window in config.windows}) > 1
    return [
        AttentionSpec(
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            scale=config.head_dim**-0.5,
            sliding_window=window,
            group=int(is_mixed and window is not None),
        )
        for window in config.windows
    ]
