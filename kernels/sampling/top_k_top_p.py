"""Top-k, top-p and min-p: what is kept, as thresholds, as a draw, or as masked logits.

Knows the order of the three rules. Knows neither how thresholds are found (threshold.py) nor how
a token is drawn (gumbel.py).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.sampling.group_stats import group_stats
from kernels.sampling.gumbel import gumbel_sample
from kernels.sampling.threshold import find_thresholds

BLOCK = tl.constexpr(4096)


def top_k_top_p_thresholds(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> tuple[Tensor, Tensor]:
    """The smallest logit each row keeps [N] float32, and group maxima for `gumbel_sample`.

    Probabilities are softmax(logits / temperature). One rule after the other, as vLLM orders them:
    min_p keeps tokens with at least min_p times the largest probability; top_k keeps the k
    largest of these and every token equal to the k-th; top_p keeps the smallest set of these, most
    probable first, with at least top_p of what the others left, and every token equal to its
    last. At least one token stays. Masses are sums in float32: a set within about 1e-6 of top_p
    may fall on either side.

    Args:
        logits: [N, V] float32, bfloat16 or float16; rows may be strided, tokens contiguous.
        temperature: [N] float32; 0 keeps the largest logit.
        top_k: [N] int32, 0 or >= V: off. top_p: [N] float32 in (0, 1], 1: off.
        min_p: [N] float32 in [0, 1], 0: off.
    """
    group_max, group_sum, _ = group_stats(logits, temperature)
    thresholds = find_thresholds(logits, temperature, top_k, top_p, min_p, group_max, group_sum)
    return thresholds, group_max


def top_k_top_p_sample(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    positions: Tensor,
) -> tuple[Tensor, Tensor]:
    """Draw one token a row from what top_k, top_p and min_p keep.

    The same noise as `gumbel_sample`: where that would draw a kept token, so does this.
    Arguments as in `top_k_top_p_thresholds` and `gumbel_sample`; returns token ids [N] int64 and
    is_valid [N] bool.
    """
    thresholds, group_max = top_k_top_p_thresholds(logits, temperature, top_k, top_p, min_p)
    return gumbel_sample(logits, temperature, seeds, positions, thresholds, group_max)


@triton.jit
def _mask_kernel(logits_ptr, row_stride, threshold_ptr, out_ptr, vocab_size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocab_size
    x = tl.load(logits_ptr + row * row_stride + token, mask=inside)
    kept = tl.where(x.to(tl.float32) < tl.load(threshold_ptr + row), -float("inf"), x)
    tl.store(out_ptr + row * vocab_size + token, kept, mask=inside)


def top_k_top_p_mask(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> Tensor:
    """A copy of logits [N, V] with -inf wherever `top_k_top_p_thresholds` does not keep."""
    thresholds, _ = top_k_top_p_thresholds(logits, temperature, top_k, top_p, min_p)
    num_rows, vocab_size = logits.shape
    out = torch.empty(num_rows, vocab_size, dtype=logits.dtype, device=logits.device)
    if num_rows:
        grid = (num_rows, triton.cdiv(vocab_size, BLOCK.value))
        _mask_kernel[grid](
            logits, logits.stride(0), thresholds, out, vocab_size, BLOCK=BLOCK.value, num_warps=4
        )
    return out
