"""Maximum and exponential sum of every 128 logits: what top-k, top-p and logprobs prune by.

The one pass that reads the whole vocabulary. Knows nothing of thresholds.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

GROUP = tl.constexpr(128)
GROUPS = tl.constexpr(32)


@triton.jit
def _group_stats_kernel(
    logits_ptr,
    row_stride,
    temperature_ptr,
    token_ptr,
    max_ptr,
    sum_ptr,
    count_ptr,
    vocab_size,
    num_groups,
    HAS_TEMPERATURE: tl.constexpr,
    HAS_TOKEN: tl.constexpr,
):
    row, block = tl.program_id(0), tl.program_id(1)
    row_ptr = logits_ptr + row.to(tl.int64) * row_stride
    group = block * GROUPS + tl.arange(0, GROUPS)
    token = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    x = tl.load(row_ptr + token, mask=token < vocab_size, other=-float("inf")).to(tl.float32)
    scale = 1.0
    if HAS_TEMPERATURE:
        temperature = tl.load(temperature_ptr + row).to(tl.float32)
        scale = tl.where(temperature == 0.0, 1.0, 1.0 / temperature)
    largest = tl.max(x, 1)
    shift = tl.where(largest == -float("inf"), 0.0, largest)
    total = tl.sum(tl.exp((x - shift[:, None]) * scale), 1)
    nan = tl.max((x != x).to(tl.int32), 1) > 0
    at = row.to(tl.int64) * num_groups + group
    tl.store(max_ptr + at, tl.where(nan, float("nan"), largest), mask=group < num_groups)
    tl.store(sum_ptr + at, total, mask=group < num_groups)
    if HAS_TOKEN:
        chosen = tl.load(row_ptr + tl.load(token_ptr + row)).to(tl.float32)
        count = tl.sum(tl.sum((x >= chosen).to(tl.int32), 1), 0)
        # what lies behind the vocabulary was read as -inf
        outside = (block + 1) * GROUPS * GROUP - tl.minimum(
            vocab_size, (block + 1) * GROUPS * GROUP
        )
        count -= tl.where(chosen == -float("inf"), outside, 0)
        tl.store(count_ptr + row.to(tl.int64) * tl.num_programs(1) + block, count)


def group_stats(
    logits: Tensor, temperature: Tensor | None = None, token_ids: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Statistics of every group of 128 consecutive logits.

    Args:
        logits: [N, V] float32, bfloat16 or float16; rows may be strided, tokens contiguous.
        temperature: [N] float32; None or 0 counts as 1.
        token_ids: [N] int64: also count the logits that are not smaller than that token's.

    Returns:
        group_max [N, G] float32 with G = ceil(V / 128), NaN where the group holds NaN;
        group_sum [N, G] float32 = sum of exp((x - group_max) / T);
        counts [N, ceil(G / 32)] int32, or None without token_ids.
    """
    num_rows, vocab_size = logits.shape
    if logits.stride(1) != 1:
        raise ValueError(f"logits have token stride {logits.stride(1)}, must be 1: .contiguous()")
    num_groups = triton.cdiv(vocab_size, GROUP.value)
    num_blocks = triton.cdiv(num_groups, GROUPS.value)
    group_max = torch.empty(num_rows, num_groups, dtype=torch.float32, device=logits.device)
    group_sum = torch.empty_like(group_max)
    counts = None
    if token_ids is not None:
        counts = torch.empty(num_rows, num_blocks, dtype=torch.int32, device=logits.device)
    if num_rows == 0:
        return group_max, group_sum, counts
    _group_stats_kernel[(num_rows, num_blocks)](
        logits,
        logits.stride(0),
        temperature if temperature is not None else group_max,
        token_ids if token_ids is not None else group_max,
        group_max,
        group_sum,
        counts if counts is not None else group_max,
        vocab_size,
        num_groups,
        HAS_TEMPERATURE=temperature is not None,
        HAS_TOKEN=token_ids is not None,
        num_warps=4,
    )
    return group_max, group_sum, counts
