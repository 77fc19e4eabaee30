"""Qwen2 and Qwen2.5 (arXiv:2407.10671)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.models.causal_lm import CausalLM
from engine.models.decoder import DecoderConfig
from engine.models.hf_config import shared_settings, windows_by_layer_type

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Qwen2ForCausalLM(CausalLM):
    """Dense blocks; q, k and v have biases; the upper layers may have a sliding window."""

    @staticmethod
    def decoder_config(hf_config: "PretrainedConfig") -> DecoderConfig:
        """See `CausalLM.decoder_config`."""
        windows = windows_by_layer_type(hf_config)
        return replace(shared_settings(hf_config), windows=windows, qkv_bias=True)
