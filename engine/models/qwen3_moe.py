"""Qwen3 with experts (arXiv:2505.09388)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.layers.moe import MoeConfig
from engine.models.causal_lm import CausalLM
from engine.models.decoder import DecoderConfig, MlpConfig
from engine.models.hf_config import moe_config, shared_settings, window_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Qwen3MoeForCausalLM(CausalLM):
    """Qwen3's attention; blocks of experts in every decoder_sparse_step-th layer."""

    @staticmethod
    def decoder_config(hf_config: "PretrainedConfig") -> DecoderConfig:
        """See `CausalLM.decoder_config`."""
        layers = hf_config.num_hidden_layers
        return replace(
            shared_settings(hf_config),
            windows=(window_of(hf_config),) * layers,
            mlps=tuple(_mlp(hf_config, index) for index in range(layers)),
            qkv_bias=hf_config.attention_bias,
            output_bias=hf_config.attention_bias,
            qk_norm=True,
        )


def _mlp(hf_config: "PretrainedConfig", index: int) -> MlpConfig | MoeConfig:
    is_sparse = index not in hf_config.mlp_only_layers and hf_config.num_experts > 0
    if is_sparse and (index + 1) % hf_config.decoder_sparse_step == 0:
        return moe_config(
            hf_config,
            num_experts=hf_config.num_experts,
            intermediate_size=hf_config.moe_intermediate_size,
            normalize=hf_config.norm_topk_prob,
        )
    return MlpConfig(hf_config.intermediate_size)
