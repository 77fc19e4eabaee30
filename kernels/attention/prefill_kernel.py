"""The device side of paged prefill.

Knows one kernel. Query tokens times the heads of a KV head's group are the rows of a tile; a
program finds its request by a binary search in query_start_loc. Keys that every row sees are
attended without masks, those at the diagonal and at the edge of a window with. Source:
FlashAttention-2, arXiv 2307.08691.
"""

import triton
import triton.language as tl

from kernels.attention.tile import load_pages, online_softmax, shape_scores, tile_offsets

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _find_request(query_start_loc_ptr, block, first, num_rows, BLOCK_Q: tl.constexpr):
    """The last request of [first, num_rows) whose first block of query tokens is <= `block`.

    Request r may start at block (query_start[r] - query_start[first]) // BLOCK_Q + (r - first) and
    has a whole number of blocks from there; those past its end are idle.
    """
    origin = tl.load(query_start_loc_ptr + first)
    low = first
    high = num_rows
    while high - low > 1:
        middle = (low + high) // 2
        start = tl.load(query_start_loc_ptr + middle) - origin
        if start // BLOCK_Q + middle - first <= block:
            low = middle
        else:
            high = middle
    start = tl.load(query_start_loc_ptr + low) - origin
    return low, block - (start // BLOCK_Q + low - first)


@triton.jit
def _attend(
    acc,
    weight,
    peak,
    q,
    k_base,
    v_base,
    table,
    start,
    end,
    low,
    kv_len,
    position,
    multiplier,
    pre_tanh,
    window,
    stride_k_block,
    stride_k_slot,
    stride_v_block,
    stride_v_slot,
    is_dim,
    PAGE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    IS_MASKED: tl.constexpr,
    IS_CAUSAL: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    IS_PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attend to the tiles of keys [start, end); unmasked where every row sees every key of them."""
    pages = load_pages(table, start, kv_len, PAGE, BLOCK_N)
    for tile in range(start, end, BLOCK_N):
        key = tile + tl.arange(0, BLOCK_N)
        k_row = tile_offsets(pages, tile, stride_k_block, stride_k_slot, PAGE, BLOCK_N)
        v_row = tile_offsets(pages, tile, stride_v_block, stride_v_slot, PAGE, BLOCK_N)
        if IS_MASKED:
            # pages in front of the window may be the null block
            mask = ((key >= low) & (key < kv_len))[:, None] & is_dim
            k = tl.load(k_base + k_row[:, None], mask=mask, other=0.0)
            v = tl.load(v_base + v_row[:, None], mask=mask, other=0.0)
        elif IS_PADDED:
            k = tl.load(k_base + k_row[:, None], mask=is_dim, other=0.0)
            v = tl.load(v_base + v_row[:, None], mask=is_dim, other=0.0)
        else:
            k = tl.load(k_base + k_row[:, None])
            v = tl.load(v_base + v_row[:, None])
        # fetched one iteration ahead, see the decode kernel
        pages = load_pages(table, tile + BLOCK_N, kv_len, PAGE, BLOCK_N)

        scores = tl.dot(q, tl.trans(k.to(q.dtype)), input_precision=PRECISION)
        scores = shape_scores(scores, pre_tanh, HAS_SOFTCAP)
        if IS_MASKED:
            is_seen = (key < kv_len)[None, :]
            if IS_CAUSAL:
                is_seen &= key[None, :] <= position[:, None]
            if HAS_WINDOW:
                is_seen &= key[None, :] > position[:, None] - window
            scores = tl.where(is_seen, scores, float("-inf"))
        acc, weight, peak = online_softmax(
            acc, weight, peak, scores, v.to(q.dtype), multiplier, PRECISION
        )
    return acc, weight, peak


@triton.jit(do_not_specialize=["first_row", "num_rows", "window", "stride_table"])
def prefill_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    block_table_ptr,
    seq_lens_ptr,
    query_start_loc_ptr,
    out_ptr,
    lse_ptr,
    first_row,
    num_rows,
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
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    IS_CAUSAL: tl.constexpr,
    HAS_LSE: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    BLOCK_Q: tl.constexpr = BLOCK_M // GROUP
    IS_PADDED: tl.constexpr = DIM != HEAD_DIM
    kv_head = tl.program_id(1)
    # the last blocks of a prompt see the most keys: they go first
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    request, block = _find_request(query_start_loc_ptr, block, first_row, num_rows, BLOCK_Q)
    first_token = tl.load(query_start_loc_ptr + request)
    query_len = tl.load(query_start_loc_ptr + request + 1) - first_token
    if block * BLOCK_Q >= query_len:
        return
    kv_len = tl.load(seq_lens_ptr + request)

    row = tl.arange(0, BLOCK_M)
    token = block * BLOCK_Q + row // GROUP
    head = kv_head * GROUP + row % GROUP
    # rows past a whole number of groups, and tokens past the chunk
    is_row = (row < BLOCK_Q * GROUP) & (token < query_len)
    dim = tl.arange(0, DIM)
    is_dim = (dim < HEAD_DIM)[None, :]
    position = kv_len - query_len + token

    q_row = (first_token + token).to(tl.int64) * stride_q_token + head * stride_q_head
    mask = is_row[:, None] & is_dim
    q = tl.load(q_ptr + q_row[:, None] + dim[None, :], mask=mask, other=0.0).to(DOT_DTYPE)
    k_base = k_ptr + kv_head.to(tl.int64) * stride_k_head + dim[None, :]
    v_base = v_ptr + kv_head.to(tl.int64) * stride_v_head + dim[None, :]
    table = block_table_ptr + request.to(tl.int64) * stride_table
    acc = tl.zeros([BLOCK_M, DIM], dtype=tl.float32)
    weight = tl.zeros([BLOCK_M], dtype=tl.float32)
    peak = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)

    # keys [start, clear_start) and [clear_end, end) need masks, those between none
    first_position = kv_len - query_len + block * BLOCK_Q
    last_position = tl.minimum(first_position + BLOCK_Q - 1, kv_len - 1)
    if IS_CAUSAL:
        end = last_position + 1
        clear_end = tl.minimum(first_position + 1, kv_len) // BLOCK_N * BLOCK_N
    else:
        end = kv_len
        clear_end = kv_len // BLOCK_N * BLOCK_N
    low = 0
    clear_start = 0
    if HAS_WINDOW:
        low = tl.maximum(first_position - window + 1, 0)
        clear_start = tl.cdiv(tl.maximum(last_position - window + 1, 0), BLOCK_N) * BLOCK_N
        clear_start = tl.minimum(clear_start, tl.cdiv(end, BLOCK_N) * BLOCK_N)
        clear_end = tl.maximum(clear_end, clear_start)
        acc, weight, peak = _attend(
            acc,
            weight,
            peak,
            q,
            k_base,
            v_base,
            table,
            low // BLOCK_N * BLOCK_N,
            clear_start,
            low,
            kv_len,
            position,
            multiplier,
            pre_tanh,
            window,
            stride_k_block,
            stride_k_slot,
            stride_v_block,
            stride_v_slot,
            is_dim,
            PAGE,
            BLOCK_N,
            True,
            IS_CAUSAL,
            True,
            HAS_SOFTCAP,
            IS_PADDED,
            PRECISION,
        )
    acc, weight, peak = _attend(
        acc,
        weight,
        peak,
        q,
        k_base,
        v_base,
        table,
        clear_start,
        clear_end,
        low,
        kv_len,
        position,
        multiplier,
        pre_tanh,
        window,
        stride_k_block,
        stride_k_slot,
        stride_v_block,
        stride_v_slot,
        is_dim,
        PAGE,
        BLOCK_N,
        False,
        IS_CAUSAL,
        HAS_WINDOW,
        HAS_SOFTCAP,
        IS_PADDED,
        PRECISION,
    )
    acc, weight, peak = _attend(
        acc,
        weight,
        peak,
        q,
        k_base,
        v_base,
        table,
        clear_end,
        end,
        low,
        kv_len,
        position,
        multiplier,
        pre_tanh,
        window,
        stride_k_block,
        stride_k_slot,
        stride_v_block,
        stride_v_slot,
        is_dim,
        PAGE,
        BLOCK_N,
        True,
        IS_CAUSAL,
        HAS_WINDOW,
        HAS_SOFTCAP,
        IS_PADDED,
        PRECISION,
    )

    acc = acc * (v_scale / tl.where(weight > 0.0, weight, 1.0))[:, None]
    out_row = (first_token + token).to(tl.int64) * stride_out_token + head * stride_out_head
    tl.store(out_ptr + out_row[:, None] + dim[None, :], acc.to(out_ptr.dtype.element_ty), mask=mask)
    if HAS_LSE:
        lse = tl.where(weight > 0.0, (peak + tl.log2(weight)) * LN_2, float("-inf"))
        lse_row = (first_token + token).to(tl.int64) * (tl.num_programs(1) * GROUP) + head
        tl.store(lse_ptr + lse_row, lse, mask=is_row)
