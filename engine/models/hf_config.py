"""What all supported architectures read from a Hugging Face config in the same way.

Knows the names of a config's fields. Does not know files: the registry reads those.
"""

from typing import TYPE_CHECKING, Any

from engine.errors import ModelLoadError
from engine.layers.moe import MoeConfig
from engine.models.decoder import DecoderConfig, MlpConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def shared_settings(hf_config: "PretrainedConfig") -> DecoderConfig:
    """The sizes that every architecture has, with dense blocks and full attention in all layers.

    Raises:
        ModelLoadError: sizes that do not fit together, or an activation other than silu.
    """
    heads = hf_config.num_attention_heads
    kv_heads = hf_config.num_key_value_heads or heads
    if hf_config.hidden_act not in ("silu", "swish"):
        raise ModelLoadError(f"hidden_act {hf_config.hidden_act!r} is not supported: only silu is")
    if heads % kv_heads:
        raise ModelLoadError(
            f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}: "
            "correct config.json"
        )
    head_dim = getattr(hf_config, "head_dim", None) or hf_config.hidden_size // heads
    layers = hf_config.num_hidden_layers
    return DecoderConfig(
        vocab_size=hf_config.vocab_size,
        hidden_size=hf_config.hidden_size,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        norm_eps=hf_config.rms_norm_eps,
        windows=(None,) * layers,
        mlps=(MlpConfig(hf_config.intermediate_size),) * layers,
        tie_word_embeddings=bool(hf_config.tie_word_embeddings),
    )


def window_of(hf_config: "PretrainedConfig") -> int | None:
    """The sliding window; None if there is none or none that the longest sequence outgrows."""
    window = getattr(hf_config, "sliding_window", None)
    if window is None or window >= hf_config.max_position_embeddings:
        return None
    return int(window)


def windows_by_layer_type(hf_config: "PretrainedConfig") -> tuple[int | None, ...]:
    """One entry a layer: the window in layers whose type is "sliding_attention"."""
    window = window_of(hf_config)
    return tuple(window if kind == "sliding_attention" else None for kind in hf_config.layer_types)


def moe_config(hf_config: "PretrainedConfig", **settings: Any) -> MoeConfig:
    """The experts' settings, of which `settings` gives what the architectures name differently.

    Raises:
        ModelLoadError: a token would use more experts than there are.
    """
    config = MoeConfig(experts_per_token=hf_config.num_experts_per_tok, **settings)
    if not 1 <= config.experts_per_token <= config.num_experts:
        raise ModelLoadError(
            f"num_experts_per_tok {config.experts_per_token} is not between 1 and the number of "
            f"experts {config.num_experts}: correct config.json"
        )
    return config
