"""Mistral 7B and its like (arXiv:2310.06825)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.models.causal_lm import CausalLM
from engine.models.decoder import DecoderConfig
from engine.models.hf_config import shared_settings, window_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class MistralForCausalLM(CausalLM):
    """Dense blocks; one sliding window in all layers, or none."""

    @staticmethod
    def decoder_config(hf_config: "PretrainedConfig") -> DecoderConfig:
        """See `CausalLM.decoder_config`."""
        windows = (window_of(hf_config),) * hf_config.num_hidden_layers
        return replace(shared_settings(hf_config), windows=windows)
