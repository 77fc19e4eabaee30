"""Llama 2 and 3 (arXiv:2307.09288, arXiv:2407.21783)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.models.causal_lm import CausalLM
from engine.models.decoder import DecoderConfig, MlpConfig
from engine.models.hf_config import shared_settings

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class LlamaForCausalLM(CausalLM):
    """Dense blocks, full attention; biases where the config asks for them."""

    @staticmethod
    def decoder_config(hf_config: "PretrainedConfig") -> DecoderConfig:
        """See `CausalLM.decoder_config`."""
        mlp = MlpConfig(hf_config.intermediate_size, bias=hf_config.mlp_bias)
        return replace(
            shared_settings(hf_config),
            mlps=(mlp,) * hf_config.num_hidden_layers,
            qkv_bias=hf_config.attention_bias,
            output_bias=hf_config.attention_bias,
        )
