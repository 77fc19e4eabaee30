"""Gumbel sampling: softmax(logits / temperature) is drawn from without being computed.

argmax(x / T + g), g standard Gumbel, has the law softmax(x / T) (Gumbel 1954; Maddison et al.
2014). Knows how one row is cut over programs and joined again; thresholds come in from top-k,
top-p and min-p. With g = -log(e), e exponential, the same token has the least e exp(-x / T): that
is what a program compares, one logarithm a token less.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.sampling.noise import BLOCK_TOKENS, LANE_TOKENS, exponential, random_bits

GROUP = tl.constexpr(128)
LOG2_E = tl.constexpr(1.4426950408889634)
LARGEST_INT = tl.constexpr(2**31 - 1)


@triton.jit
def _lane(row_ptr, first, lane_offset, vocab_size, threshold):
    token = first + lane_offset
    x = tl.load(row_ptr + token, mask=token < vocab_size, other=-float("inf")).to(tl.float32)
    return tl.where(x < threshold, -float("inf"), x), token


@triton.jit
def _better(loss, token, other_loss, other_token):
    # strictly smaller: of equal losses the lower token stays
    take = other_loss < loss
    return tl.where(take, other_loss, loss), tl.where(take, other_token, token)


@triton.jit
def _sample_block(row_ptr, block, vocab_size, threshold, temperature, seed_ptr, position_ptr):
    """Winner of one block: (its perturbed logit in units of the noise, its token)."""
    offset = tl.arange(0, LANE_TOKENS)
    first = block * BLOCK_TOKENS
    x0, t0 = _lane(row_ptr, first, offset, vocab_size, threshold)
    x1, t1 = _lane(row_ptr, first + LANE_TOKENS, offset, vocab_size, threshold)
    x2, t2 = _lane(row_ptr, first + 2 * LANE_TOKENS, offset, vocab_size, threshold)
    x3, t3 = _lane(row_ptr, first + 3 * LANE_TOKENS, offset, vocab_size, threshold)
    nan = tl.max(((x0 != x0) | (x1 != x1) | (x2 != x2) | (x3 != x3)).to(tl.int32), 0) > 0
    largest = tl.max(tl.maximum(tl.maximum(x0, x1), tl.maximum(x2, x3)), 0)
    if temperature == 0.0:
        loss, token = -x0, t0
        loss, token = _better(loss, token, -x1, t1)
        loss, token = _better(loss, token, -x2, t2)
        loss, token = _better(loss, token, -x3, t3)
        least = tl.min(loss, 0)
        key = -least
    else:
        seed, position = tl.load(seed_ptr), tl.load(position_ptr).to(tl.int64)
        r0, r1, r2, r3 = random_bits(seed, position, block, offset)
        # powers of 2 are what the hardware has; the largest logit has loss e, far ones inf
        scale = LOG2_E / temperature
        shift = tl.where(largest == -float("inf"), 0.0, largest)
        loss, token = exponential(r0) * tl.exp2((shift - x0) * scale), t0
        loss, token = _better(loss, token, exponential(r1) * tl.exp2((shift - x1) * scale), t1)
        loss, token = _better(loss, token, exponential(r2) * tl.exp2((shift - x2) * scale), t2)
        loss, token = _better(loss, token, exponential(r3) * tl.exp2((shift - x3) * scale), t3)
        least = tl.min(loss, 0)
        key = shift * scale - tl.log2(least)
    winner = tl.min(tl.where(loss == least, token, LARGEST_INT), 0)
    key = tl.where(largest == -float("inf"), largest, key)
    return tl.where(nan, float("nan"), key), winner


@triton.jit
def _gumbel_kernel(
    logits_ptr,
    row_stride,
    temperature_ptr,
    seed_ptr,
    position_ptr,
    threshold_ptr,
    group_max_ptr,
    key_ptr,
    winner_ptr,
    vocab_size,
    num_groups,
    HAS_THRESHOLD: tl.constexpr,
):
    row, block = tl.program_id(0), tl.program_id(1)
    at = row.to(tl.int64) * tl.num_programs(1) + block
    threshold = -float("inf")
    skip = False
    if HAS_THRESHOLD:
        threshold = tl.load(threshold_ptr + row)
        groups: tl.constexpr = BLOCK_TOKENS // GROUP
        group = block * groups + tl.arange(0, groups)
        row_groups = group_max_ptr + row.to(tl.int64) * num_groups
        maxima = tl.load(row_groups + group, mask=group < num_groups, other=-float("inf"))
        # a group with NaN has the maximum NaN and is looked at
        skip = tl.min((maxima < threshold).to(tl.int32), 0) > 0
    if skip:
        tl.store(key_ptr + at, -float("inf"))
        tl.store(winner_ptr + at, block * BLOCK_TOKENS)
    else:
        key, winner = _sample_block(
            logits_ptr + row.to(tl.int64) * row_stride,
            block,
            vocab_size,
            threshold,
            tl.load(temperature_ptr + row).to(tl.float32),
            seed_ptr + row,
            position_ptr + row,
        )
        tl.store(key_ptr + at, key)
        tl.store(winner_ptr + at, winner)


@triton.jit
def _join_kernel(
    key_ptr, winner_ptr, token_ptr, valid_ptr, vocab_size, num_blocks, BLOCKS: tl.constexpr
):
    row = tl.program_id(0)
    block = tl.arange(0, BLOCKS)
    at = row.to(tl.int64) * num_blocks + block
    key = tl.load(key_ptr + at, mask=block < num_blocks, other=-float("inf"))
    winner = tl.load(winner_ptr + at, mask=block < num_blocks, other=LARGEST_INT)
    nan = tl.max((key != key).to(tl.int32), 0) > 0
    best = tl.max(tl.where(key != key, -float("inf"), key), 0)
    token = tl.min(tl.where(key == best, winner, LARGEST_INT), 0)
    # a row without a valid winner still names a token of the vocabulary
    tl.store(token_ptr + row, tl.minimum(token, vocab_size - 1).to(tl.int64))
    valid = (best > -float("inf")) & (best < float("inf")) & (nan == 0)
    tl.store(valid_ptr + row, valid.to(tl.int8))


def gumbel_sample(
    logits: Tensor,
    temperature: Tensor,
    seeds: Tensor,
    positions: Tensor,
    thresholds: Tensor | None = None,
    group_max: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw one token a row from softmax(logits / temperature).

    The noise of a token depends on (seed, position, token) only: not on the row's place, on
    other rows or on the launch. Temperature 0 takes the largest logit (lowest token of a tie).

    Args:
        logits: [N, V] float32, bfloat16 or float16; rows may be strided, tokens contiguous.
        temperature: [N] float32, >= 0.
        seeds: [N] int64.
        positions: [N] int64: which draw of its request this is.
        thresholds: [N] float32: tokens with a smaller logit are not drawn. None: all may be.
        group_max: [N, ceil(V / 128)] float32 from `group_stats`: required with thresholds, lets
            programs pass over blocks in which nothing is kept.

    Returns:
        Token ids [N] int64 and is_valid [N] bool. A row is not valid if it holds NaN or +inf, or
        nothing but -inf; its token is within the vocabulary and means nothing.
    """
    num_rows, vocab_size = logits.shape
    if logits.stride(1) != 1:
        raise ValueError(f"logits have token stride {logits.stride(1)}, must be 1: .contiguous()")
    if (thresholds is None) != (group_max is None):
        raise ValueError("thresholds and group_max belong together: pass both or neither")
    num_blocks = triton.cdiv(vocab_size, BLOCK_TOKENS.value)
    device = logits.device
    keys = torch.empty(num_rows, num_blocks, dtype=torch.float32, device=device)
    winners = torch.empty(num_rows, num_blocks, dtype=torch.int32, device=device)
    tokens = torch.empty(num_rows, dtype=torch.int64, device=device)
    is_valid = torch.empty(num_rows, dtype=torch.bool, device=device)
    if num_rows == 0:
        return tokens, is_valid
    _gumbel_kernel[(num_rows, num_blocks)](
        logits,
        logits.stride(0),
        temperature,
        seeds,
        positions,
        thresholds if thresholds is not None else keys,
        group_max if group_max is not None else keys,
        keys,
        winners,
        vocab_size,
        0 if group_max is None else group_max.shape[1],
        HAS_THRESHOLD=thresholds is not None,
        num_warps=4,
    )
    _join_kernel[(num_rows,)](
        keys,
        winners,
        tokens,
        is_valid.view(torch.int8),
        vocab_size,
        num_blocks,
        BLOCKS=triton.next_power_of_2(num_blocks),
        num_warps=1,
    )
    return tokens, is_valid
