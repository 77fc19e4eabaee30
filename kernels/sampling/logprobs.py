"""Log-probabilities of chosen and most probable tokens, without the rest of log-softmax.

Knows the definition of rank. The vocabulary is read once, by group_stats; a second program a row
joins its groups and takes the best tokens one by one, each from the group whose rest is largest.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.sampling.group_stats import GROUP, group_stats

LARGEST_INT = tl.constexpr(2**31 - 1)


@triton.jit
def _logprobs_kernel(
    logits_ptr,
    row_stride,
    token_ptr,
    group_max_ptr,
    group_sum_ptr,
    count_ptr,
    chosen_ptr,
    rank_ptr,
    top_value_ptr,
    top_token_ptr,
    vocab_size,
    num_groups,
    num_blocks,
    num_top,
    GROUPS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * row_stride
    group = tl.arange(0, GROUPS)
    here = row * num_groups + group
    maxima = tl.load(group_max_ptr + here, mask=group < num_groups, other=-float("inf"))
    sums = tl.load(group_sum_ptr + here, mask=group < num_groups, other=0.0)
    largest = tl.max(maxima, 0)
    shift = tl.where(largest == -float("inf"), 0.0, largest)
    # NaN maxima make the sum NaN, so that every logprob of such a row is NaN
    total = largest + tl.log(tl.sum(sums * tl.exp(maxima - shift), 0))
    block = tl.arange(0, BLOCKS)
    counts = tl.load(count_ptr + row * num_blocks + block, mask=block < num_blocks, other=0)
    chosen = tl.load(row_ptr + tl.load(token_ptr + row)).to(tl.float32)
    tl.store(chosen_ptr + row, chosen - total)
    tl.store(rank_ptr + row, tl.sum(counts, 0))
    # tokens are taken in one order (larger logit, then lower token), so the last one taken says
    # of every group which of its tokens are left
    last_x, last_token = float("inf"), -1
    for i in range(num_top):
        best = tl.max(maxima, 0)
        winner = tl.min(tl.where((maxima == best) & (group < num_groups), group, LARGEST_INT), 0)
        # no winner where the best is NaN
        winner = tl.minimum(winner, num_groups - 1)
        token = winner * GROUP + tl.arange(0, GROUP)
        x = tl.load(row_ptr + token, mask=token < vocab_size, other=-float("inf")).to(tl.float32)
        left = (x < last_x) | ((x == last_x) & (token > last_token))
        last_token = tl.min(tl.where(left & (x == best), token, vocab_size - 1), 0)
        last_x = best
        tl.store(top_value_ptr + row * num_top + i, best - total)
        tl.store(top_token_ptr + row * num_top + i, last_token.to(tl.int64))
        left = (x < last_x) | ((x == last_x) & (token > last_token))
        rest = tl.max(tl.where(left, x, -float("inf")), 0)
        maxima = tl.where(group == winner, rest, maxima)


def token_logprobs(
    logits: Tensor, token_ids: Tensor, num_top: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-softmax of one token and of the best tokens of each row.

    Args:
        logits: [N, V] float32, bfloat16 or float16; rows may be strided, tokens contiguous.
        token_ids: [N] int64.
        num_top: n, number of best tokens, 0 <= n <= V.

    Returns:
        logprobs [N] float32 of token_ids; ranks [N] int64: how many tokens are at least as
        probable as the chosen one, itself counted (1 is the best; vLLM's definition);
        top_logprobs [N, n] float32, largest first; top_token_ids [N, n] int64, of equal logits
        the lower token first. Where fewer than n logits exceed -inf, the other entries have
        logprob -inf and a token id that means nothing. A row with NaN has NaN logprobs.
    """
    num_rows, vocab_size = logits.shape
    if not 0 <= num_top <= vocab_size:
        raise ValueError(f"num_top={num_top} is outside [0, {vocab_size}], the vocabulary's size")
    device = logits.device
    chosen = torch.empty(num_rows, dtype=torch.float32, device=device)
    ranks = torch.empty(num_rows, dtype=torch.int64, device=device)
    top_values = torch.empty(num_rows, num_top, dtype=torch.float32, device=device)
    top_tokens = torch.empty(num_rows, num_top, dtype=torch.int64, device=device)
    if num_rows == 0:
        return chosen, ranks, top_values, top_tokens
    group_max, group_sum, counts = group_stats(logits, None, token_ids)
    assert counts is not None
    _logprobs_kernel[(num_rows,)](
        logits,
        logits.stride(0),
        token_ids,
        group_max,
        group_sum,
        counts,
        chosen,
        ranks,
        top_values,
        top_tokens,
        vocab_size,
        group_max.shape[1],
        counts.shape[1],
        num_top,
        GROUPS=triton.next_power_of_2(group_max.shape[1]),
        BLOCKS=triton.next_power_of_2(counts.shape[1]),
        num_warps=4,
    )
    return chosen, ranks, top_values, top_tokens
