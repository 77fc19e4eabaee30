"""Mixtral of experts (arXiv:2401.04088)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.models.causal_lm import CausalLM
from engine.models.decoder import DecoderConfig
from engine.models.hf_config import moe_config, shared_settings, window_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class MixtralForCausalLM(CausalLM):
    """Mistral's attention and a block of experts in every layer."""

    @staticmethod
    def decoder_config(hf_config: "PretrainedConfig") -> DecoderConfig:
        """See `CausalLM.decoder_config`."""
        layers = hf_config.num_hidden_layers
        experts = moe_config(
            hf_config,
            num_experts=hf_config.num_local_experts,
            intermediate_size=hf_config.intermediate_size,
            normalize=True,
            block="block_sparse_moe",
            gate="w1",
            up="w3",
            down="w2",
        )
        return replace(
            shared_settings(hf_config),
            windows=(window_of(hf_config),) * layers,
            mlps=(experts,) * layers,
        )
