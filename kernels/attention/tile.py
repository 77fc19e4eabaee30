"""Device functions that the attention kernels share: pages, scores, the online softmax.

Knows one tile of keys at a time. Scores are kept in units of log2, so that exp2 serves; a score is
`multiplier * shape_scores(q k)` with multiplier > 0, which lets the product melt into the exponent.
Source of the online softmax: Milakov and Gimelshein, arXiv 1805.02867; of its use in tiles: Dao et
al., FlashAttention, arXiv 2205.14135.
"""

import triton
import triton.language as tl


@triton.jit
def load_pages(table_ptr, start, end, PAGE: tl.constexpr, BLOCK_N: tl.constexpr):
    """Page of each of BLOCK_N positions from `start`; one scalar where the tile lies in one page.

    Past `end` it is page 0, which exists and is never attended.
    """
    if PAGE % BLOCK_N == 0:
        return tl.load(table_ptr + start // PAGE, mask=start < end, other=0)
    else:
        position = start + tl.arange(0, BLOCK_N)
        return tl.load(table_ptr + position // PAGE, mask=position < end, other=0)


@triton.jit
def tile_offsets(
    pages, start, stride_block, stride_slot, PAGE: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Element offset of each of the BLOCK_N positions of a tile, int64 [BLOCK_N]."""
    slot = (start + tl.arange(0, BLOCK_N)) % PAGE
    return pages.to(tl.int64) * stride_block + slot * stride_slot


@triton.jit
def shape_scores(scores, pre_tanh, HAS_SOFTCAP: tl.constexpr):
    """Soft cap: tanh of the scaled scores, from exp2, the one exponential there is everywhere."""
    if HAS_SOFTCAP:
        # 2 log2(e) is part of pre_tanh
        return 1.0 - 2.0 / (1.0 + tl.exp2(scores * pre_tanh))
    else:
        return scores


@triton.jit
def online_softmax(acc, weight, peak, scores, v, multiplier, PRECISION: tl.constexpr):
    """Take one tile of scores [M, N] and values [N, D] into the running (acc, weight, peak).

    A row that has seen no key yet has peak -inf, weight 0 and acc 0.
    """
    new_peak = tl.maximum(peak, tl.max(scores, axis=1) * multiplier)
    shift = tl.where(new_peak == float("-inf"), 0.0, new_peak)
    p = tl.exp2(scores * multiplier - shift[:, None])
    decay = tl.exp2(peak - shift)
    weight = weight * decay + tl.sum(p, axis=1)
    acc = tl.dot(p.to(v.dtype), v, acc * decay[:, None], input_precision=PRECISION)
    return acc, weight, new_peak
