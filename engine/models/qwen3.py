"""Qwen3 (arXiv:2505.09388)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.models.causal_lm import CausalLM
from engine.models.decoder import DecoderConfig
from engine.models.hf_config import shared_settings, windows_by_layer_type

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Qwen3ForCausalLM(CausalLM):
    """Dense blocks; heads of q and k are normalised; the upper layers may have a window."""

    @staticmethod
    def decoder_config(hf_config: "PretrainedConfig") -> DecoderConfig:
        """See `CausalLM.decoder_config`."""
        return replace(
            shared_settings(hf_config),
            windows=windows_by_layer_type(hf_config),
            qkv_bias=hf_config.attention_bias,
            output_bias=hf_config.attention_bias,
            qk_norm=True,
        )
