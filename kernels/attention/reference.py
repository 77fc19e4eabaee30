"""Attention in float64, one request and one head at a time: slow, obviously right.

Knows the definition and the page table; no tile, no trick. Ignores what only kernels need.
"""

from typing import Any

import torch


def gather(cache: torch.Tensor, pages: torch.Tensor, length: int, scale: float) -> torch.Tensor:
    """The first `length` entries of a request, float64 [length, Hkv, D].

    cache: [num_blocks, Hkv, block_size, D]. pages: the request's row of the block table.
    """
    block_size = cache.shape[2]
    position = torch.arange(length, device=cache.device)
    page = pages.long()[position // block_size]
    return cache[page, :, position % block_size].double() * scale


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    is_seen: torch.Tensor,
    scale: float,
    softcap: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One head: q [M, D], k and v [N, D], is_seen [M, N] -> out [M, D], lse [M]."""
    scores = q @ k.T * scale
    if softcap > 0.0:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~is_seen, float("-inf"))
    lse = torch.logsumexp(scores, dim=1)
    has_keys = is_seen.any(dim=1, keepdim=True)
    weights = torch.where(has_keys, torch.exp(scores - lse[:, None]), 0.0)
    # what no row sees may hold NaN
    values = torch.where(is_seen.any(dim=0)[:, None], v, 0.0)
    return weights @ values, lse


def paged_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    *,
    scale: float,
    sliding_window: int = 0,
    softcap: float = 0.0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    causal: bool = True,
    **kernel_only: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(out float64 [T, Hq, D], lse float64 [T, Hq]); tokens of rows without keys get 0 and -inf."""
    num_tokens, num_heads, _ = q.shape
    group = num_heads // k_cache.shape[1]
    out = torch.zeros(q.shape, dtype=torch.float64, device=q.device)
    lse = torch.full((num_tokens, num_heads), float("-inf"), dtype=torch.float64, device=q.device)
    starts = query_start_loc.tolist()
    for row, kv_len in enumerate(seq_lens.tolist()):
        tokens = slice(starts[row], starts[row + 1])
        query_len = tokens.stop - tokens.start
        if kv_len == 0 or query_len == 0:
            continue
        k = gather(k_cache, block_table[row], kv_len, k_scale)
        v = gather(v_cache, block_table[row], kv_len, v_scale)
        key = torch.arange(kv_len, device=q.device)[None, :]
        position = torch.arange(kv_len - query_len, kv_len, device=q.device)[:, None]
        is_seen = key <= position if causal else (key >= 0).expand(query_len, kv_len)
        if sliding_window > 0:
            is_seen = is_seen & (key > position - sliding_window)
        for head in range(num_heads):
            out[tokens, head], lse[tokens, head] = attend(
                q[tokens, head].double(),
                k[:, head // group],
                v[:, head // group],
                is_seen,
                scale,
                softcap,
            )
    return out, lse


def merge_states(
    out_a: torch.Tensor,
    lse_a: torch.Tensor,
    out_b: torch.Tensor,
    lse_b: torch.Tensor,
    **kernel_only: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, lse) over both sets of keys, float64; -inf marks a side without keys."""
    lse = torch.logaddexp(lse_a.double(), lse_b.double())
    share = [torch.exp(side.double() - lse).nan_to_num(0.0)[..., None] for side in (lse_a, lse_b)]
    parts = [
        torch.where(weight > 0.0, side.double() * weight, 0.0)
        for side, weight in zip((out_a, out_b), share, strict=True)
    ]
    return parts[0] + parts[1], lse
