"""Attention of one or a few query tokens a request over a paged KV cache: split-KV decode.

Knows the kernel that attends to a part of the context, and its launch; merge.py joins the parts.
All query heads of a KV head, times all query tokens of the request (more than one when drafts are
verified), are the rows of one tile, so that K and V are read once. Sources: FlashDecoding (Dao et
al. 2023), GQA packing as in FlashAttention-2.
"""

import math

import torch
import triton
import triton.language as tl

from kernels.attention.arguments import (
    Shape,
    check_shape,
    constants_of,
    score_factors,
    strides_of,
)
from kernels.attention.config import (
    MAX_VERIFY_LEN,
    MIN_SPLIT_TOKENS,
    LaunchConfig,
    choose_num_splits,
    decode_config,
    next_power_of_2,
)
from kernels.attention.merge import merge_parts
from kernels.attention.tile import load_pages, online_softmax, shape_scores, tile_offsets
from kernels.target import Target, target_of

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit(do_not_specialize=["window", "stride_table"])
def _decode_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    block_table_ptr,
    seq_lens_ptr,
    query_start_loc_ptr,
    out_ptr,
    part_ptr,
    lse_ptr,
    multiplier,
    pre_tanh,
    v_scale,
    window,
    stride_q_token,
    stride_q_head,
    stride_k_block,
    stride_k_head,
    stride_k_slot,
    stride_v_block,
    stride_v_head,
    stride_v_slot,
    stride_table,
    stride_out_token,
    stride_out_head,
    GROUP: tl.constexpr,
    QUERY_LEN: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MIN_TILES: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    HAS_LSE: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    M_BLOCKS: tl.constexpr = (GROUP * QUERY_LEN + BLOCK_M - 1) // BLOCK_M
    request = tl.program_id(0) // M_BLOCKS
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    num_splits = tl.num_programs(2)
    num_heads = tl.num_programs(1) * GROUP

    seq_len = tl.load(seq_lens_ptr + request)
    if QUERY_LEN == 1:
        first_token = request
        query_len = 1
    else:
        first_token = tl.load(query_start_loc_ptr + request)
        query_len = tl.load(query_start_loc_ptr + request + 1) - first_token

    row = tl.program_id(0) % M_BLOCKS * BLOCK_M + tl.arange(0, BLOCK_M)
    token = row // GROUP
    head = kv_head * GROUP + row % GROUP
    is_row = token < query_len
    dim = tl.arange(0, DIM)
    is_dim = dim < HEAD_DIM
    position = seq_len - query_len + token

    # the part of the context that is this program's: whole tiles, within the window
    low = 0
    if HAS_WINDOW:
        low = tl.maximum(seq_len - query_len - window + 1, 0)
    first_tile = low // BLOCK_N
    num_tiles = tl.cdiv(seq_len, BLOCK_N) - first_tile
    tiles_a_split = tl.maximum(tl.cdiv(num_tiles, num_splits), MIN_TILES)
    start = (first_tile + split * tiles_a_split) * BLOCK_N
    end = tl.minimum(seq_len, start + tiles_a_split * BLOCK_N)

    # element of [token, head]; for parts: of [token, head, split]
    out_row = (first_token + token).to(tl.int64) * num_heads + head
    if IS_SPLIT and start >= end:
        tl.store(lse_ptr + out_row * num_splits + split, float("-inf"), mask=is_row)
        return

    q_row = (first_token + token).to(tl.int64) * stride_q_token + head * stride_q_head
    q_mask = is_row[:, None] & is_dim[None, :]
    q = tl.load(q_ptr + q_row[:, None] + dim[None, :], mask=q_mask, other=0.0).to(DOT_DTYPE)

    k_base = k_ptr + kv_head.to(tl.int64) * stride_k_head + dim[None, :]
    v_base = v_ptr + kv_head.to(tl.int64) * stride_v_head + dim[None, :]
    table = block_table_ptr + request.to(tl.int64) * stride_table
    acc = tl.zeros([BLOCK_M, DIM], dtype=tl.float32)
    weight = tl.zeros([BLOCK_M], dtype=tl.float32)
    peak = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)

    # the pages of the next tile are fetched one iteration ahead: a page load that K waits for
    # within the same iteration would leave the software pipeline a single buffer
    pages = load_pages(table, start, end, PAGE, BLOCK_N)
    for tile in range(start, end, BLOCK_N):
        key = tile + tl.arange(0, BLOCK_N)
        is_key = (key >= low) & (key < end)
        k_row = tile_offsets(pages, tile, stride_k_block, stride_k_slot, PAGE, BLOCK_N)
        k = tl.load(k_base + k_row[:, None], mask=is_key[:, None] & is_dim[None, :], other=0.0)
        v_row = tile_offsets(pages, tile, stride_v_block, stride_v_slot, PAGE, BLOCK_N)
        v = tl.load(v_base + v_row[:, None], mask=is_key[:, None] & is_dim[None, :], other=0.0)
        pages = load_pages(table, tile + BLOCK_N, end, PAGE, BLOCK_N)

        scores = tl.dot(q, tl.trans(k.to(DOT_DTYPE)), input_precision=PRECISION)
        scores = shape_scores(scores, pre_tanh, HAS_SOFTCAP)
        if QUERY_LEN == 1:
            is_seen = is_key[None, :]
        else:
            is_seen = (key[None, :] <= position[:, None]) & is_key[None, :]
            if HAS_WINDOW:
                is_seen &= key[None, :] > position[:, None] - window
        scores = tl.where(is_seen, scores, float("-inf"))
        acc, weight, peak = online_softmax(
            acc, weight, peak, scores, v.to(DOT_DTYPE), multiplier, PRECISION
        )

    acc = acc * (v_scale / tl.where(weight > 0.0, weight, 1.0))[:, None]
    lse = tl.where(weight > 0.0, peak + tl.log2(weight), float("-inf"))
    if IS_SPLIT:
        part_row = out_row * num_splits + split
        tl.store(lse_ptr + part_row, lse, mask=is_row)
        tl.store(part_ptr + part_row[:, None] * HEAD_DIM + dim[None, :], acc, mask=q_mask)
    else:
        row = (first_token + token).to(tl.int64) * stride_out_token + head * stride_out_head
        tl.store(
            out_ptr + row[:, None] + dim[None, :], acc.to(out_ptr.dtype.element_ty), mask=q_mask
        )
        if HAS_LSE:
            tl.store(lse_ptr + out_row, lse * LN_2, mask=is_row)


def paged_decode(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    *,
    max_query_len: int,
    max_seq_len: int,
    scale: float,
    sliding_window: int = 0,
    softcap: float = 0.0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    out: torch.Tensor | None = None,
    lse: torch.Tensor | None = None,
    workspace: torch.Tensor | None = None,
    config: LaunchConfig | None = None,
    num_splits: int | None = None,
) -> torch.Tensor:
    """Causal attention of at most MAX_VERIFY_LEN query tokens a request.

    q, out: [T, Hq, D]; the query tokens of a request are its last. seq_lens: [R] keys of a request
    incl. its query tokens; a row of 0 gives zeros. With max_query_len 1, row r is token r. lse:
    float32 [T, Hq], receives log(sum(exp(scores))), -inf without keys. workspace: float32, at
    least `workspace_size` elements; allocated if absent. The grid depends on host numbers only.
    """
    if max_query_len > MAX_VERIFY_LEN:
        raise ValueError(
            f"max_query_len {max_query_len} exceeds {MAX_VERIFY_LEN}: use paged_prefill"
        )
    target = target_of(q.device)
    shape = check_shape(q, k_cache, v_cache, block_table, seq_lens, target)
    query_len = next_power_of_2(max_query_len)
    rows = query_len * shape.group
    config = config or decode_config(shape.head_dim, shape.element_size, rows, target)
    multiplier, pre_tanh = score_factors(scale, softcap, k_scale)
    out = torch.empty_like(q) if out is None else out
    m_blocks = -(-rows // config.block_m)
    num_splits = num_splits or _num_splits(shape, m_blocks, max_seq_len, target)
    part, part_lse = _parts(shape, num_splits, workspace, q.device)
    is_split = num_splits > 1
    _decode_kernel[(shape.num_rows * m_blocks, shape.num_kv_heads, num_splits)](
        q,
        k_cache,
        v_cache,
        block_table,
        seq_lens,
        query_start_loc,
        out,
        part,
        part_lse if is_split else lse,
        multiplier,
        pre_tanh,
        v_scale,
        sliding_window,
        *strides_of(q, k_cache, v_cache, block_table, out),
        QUERY_LEN=query_len,
        MIN_TILES=max(1, MIN_SPLIT_TOKENS // config.block_n),
        IS_SPLIT=is_split,
        **constants_of(shape, config, q, k_cache, lse, sliding_window, softcap),
    )
    if part is not None and part_lse is not None:
        merge_parts(part, part_lse, out, lse)
    return out


def workspace_size(
    num_tokens: int, num_heads: int, num_kv_heads: int, head_dim: int, num_sms: int
) -> int:
    """float32 elements that are enough for every call of at most `num_tokens` query tokens."""
    most = 0
    for num_rows in range(1, num_tokens + 1):
        num_splits = choose_num_splits(num_rows * num_kv_heads, 1 << 30, num_sms)
        if num_splits > 1:
            most = max(most, num_splits * min(num_tokens, num_rows * MAX_VERIFY_LEN))
    return most * num_heads * (head_dim + 1)


def _num_splits(shape: Shape, m_blocks: int, max_seq_len: int, target: Target) -> int:
    programs = shape.num_rows * m_blocks * shape.num_kv_heads
    return choose_num_splits(programs, max_seq_len, target.num_sms)


def _parts(
    shape: Shape, num_splits: int, workspace: torch.Tensor | None, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Room for the parts' outputs [T, Hq, splits, D] and lse [T, Hq, splits]."""
    if num_splits == 1:
        return None, None
    lse_shape = (shape.num_tokens, shape.num_heads, num_splits)
    rows = math.prod(lse_shape)
    needed = rows * (shape.head_dim + 1)
    if workspace is None:
        workspace = torch.empty(needed, dtype=torch.float32, device=device)
    elif workspace.numel() < needed or workspace.dtype != torch.float32:
        raise ValueError(
            f"workspace of {workspace.numel()} {workspace.dtype}: this call needs {needed} float32"
        )
    part, part_lse = workspace[:needed].split([rows * shape.head_dim, rows])
    return part.view(*lse_shape, shape.head_dim), part_lse.view(lse_shape)
