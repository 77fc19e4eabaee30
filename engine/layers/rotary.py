"""The table of cosines and sines for rotary position embeddings.

Knows the kinds of RoPE scaling whose frequencies do not depend on the length of a sequence; those
that do would make cached keys wrong when a sequence grows. Does not rotate: attention does.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from engine.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# up to max_position_embeddings "dynamic" has the frequencies of "default", and longer prompts are
# refused
SUPPORTED = ("default", "linear", "dynamic", "llama3", "yarn")


def cos_sin_table(hf_config: "PretrainedConfig", head_dim: int) -> Tensor:
    """cos and sin of position · frequency, as attention wants them.

    Frequencies are those of RoFormer (arXiv:2104.09864) with the scaling that the config names; the
    scaling's factor on cosines and sines (YaRN, arXiv:2309.00071) is folded in.

    Returns:
        [max_position_embeddings, head_dim] float32 on the CPU: head_dim / 2 cosines, then sines.

    Raises:
        ModelLoadError: a kind of RoPE that is not supported, or one that lacks a parameter.
    """
    inverse_frequencies, factor = _inverse_frequencies(hf_config, head_dim)
    if inverse_frequencies.shape != (head_dim // 2,):
        raise ModelLoadError(
            f"RoPE rotates {2 * len(inverse_frequencies)} of {head_dim} dimensions of a head: "
            "only full rotation (partial_rotary_factor 1) is supported"
        )
    positions = torch.arange(hf_config.max_position_embeddings, dtype=torch.float32)
    angles = positions[:, None] * inverse_frequencies
    return torch.cat((angles.cos() * factor, angles.sin() * factor), dim=-1)


def _inverse_frequencies(hf_config: "PretrainedConfig", head_dim: int) -> tuple[Tensor, float]:
    """[rotated dimensions / 2] float32 radians a position, and the factor on cosines and sines."""
    parameters = hf_config.rope_parameters
    kind = parameters.get("rope_type", "default")
    if kind not in SUPPORTED:
        raise ModelLoadError(
            f"RoPE type {kind!r} is not supported: {', '.join(SUPPORTED)} are (rope_parameters)"
        )
    if kind == "default":
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        return 1.0 / parameters["rope_theta"] ** exponents, 1.0
    try:
        inverse_frequencies, factor = ROPE_INIT_FUNCTIONS[kind](hf_config, torch.device("cpu"))
    except KeyError as error:
        raise ModelLoadError(
            f"RoPE type {kind!r} lacks {error}: add it to rope_parameters in config.json"
        ) from None
    return inverse_frequencies.float(), float(factor)
