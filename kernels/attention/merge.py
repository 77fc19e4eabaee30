"""Merge attention over disjoint sets of keys into attention over all of them.

Knows pairs of an output and the logarithm of its sum of exponentials; not where they come from: the
splits of a decode, a shared prefix and the rest (cascade), parts of a context on two devices.
Source: Ye et al., FlashInfer, arXiv 2501.01005, section 2.2.
"""

import torch
import triton
import triton.language as tl

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit(do_not_specialize=["num_splits"])
def _merge_parts_kernel(
    part_ptr,
    part_lse_ptr,
    out_ptr,
    lse_ptr,
    num_splits,
    stride_out_token,
    stride_out_head,
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    HAS_LSE: tl.constexpr,
):
    token = tl.program_id(0)
    head = tl.program_id(1)
    row = token.to(tl.int64) * tl.num_programs(1) + head
    split = tl.arange(0, SPLITS)
    dim = tl.arange(0, DIM)
    lse = tl.load(
        part_lse_ptr + row * num_splits + split, mask=split < num_splits, other=float("-inf")
    )
    peak = tl.max(lse, axis=0)
    share = tl.exp2(lse - tl.where(peak == float("-inf"), 0.0, peak))
    total = tl.sum(share, axis=0)
    # a part without keys was never written
    mask = (lse > float("-inf"))[:, None] & (dim < HEAD_DIM)[None, :]
    offset = (row * num_splits + split)[:, None] * HEAD_DIM + dim[None, :]
    part = tl.load(part_ptr + offset, mask=mask, other=0.0)
    out = tl.sum(part * share[:, None], axis=0) / tl.where(total > 0.0, total, 1.0)
    out_row = token.to(tl.int64) * stride_out_token + head * stride_out_head
    tl.store(out_ptr + out_row + dim, out.to(out_ptr.dtype.element_ty), mask=dim < HEAD_DIM)
    if HAS_LSE:
        merged = tl.where(total > 0.0, peak + tl.log2(total), float("-inf"))
        tl.store(lse_ptr + row, merged * LN_2)


def merge_parts(
    part: torch.Tensor, part_lse: torch.Tensor, out: torch.Tensor, lse: torch.Tensor | None
) -> None:
    """Write the whole of each token's and head's splits to out [T, H, D] and lse [T, H].

    part: float32 [T, H, splits, D], not read where part_lse [T, H, splits] is -inf. part_lse is in
    units of log2, lse natural.
    """
    num_tokens, num_heads, num_splits, head_dim = part.shape
    _merge_parts_kernel[(num_tokens, num_heads)](
        part,
        part_lse,
        out,
        lse,
        num_splits,
        *(out.stride(0), out.stride(1)),
        HEAD_DIM=head_dim,
        DIM=triton.next_power_of_2(head_dim),
        SPLITS=triton.next_power_of_2(num_splits),
        HAS_LSE=lse is not None,
        num_warps=4,
    )


@triton.jit(do_not_specialize=["num_rows"])
def _merge_states_kernel(
    out_a_ptr,
    lse_a_ptr,
    out_b_ptr,
    lse_b_ptr,
    out_ptr,
    lse_ptr,
    num_rows,
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < num_rows
    lse_a = tl.load(lse_a_ptr + row, mask=is_row, other=0.0)
    lse_b = tl.load(lse_b_ptr + row, mask=is_row, other=0.0)
    peak = tl.maximum(lse_a, lse_b)
    shift = tl.where(peak == float("-inf"), 0.0, peak)
    share_a = tl.exp(lse_a - shift)
    share_b = tl.exp(lse_b - shift)
    total = share_a + share_b
    divisor = tl.where(total > 0.0, total, 1.0)
    dim = tl.arange(0, DIM)
    offset = row.to(tl.int64)[:, None] * HEAD_DIM + dim[None, :]
    mask = is_row[:, None] & (dim < HEAD_DIM)[None, :]
    # a side without keys may hold anything
    a = tl.load(out_a_ptr + offset, mask=mask & (share_a > 0.0)[:, None], other=0.0)
    b = tl.load(out_b_ptr + offset, mask=mask & (share_b > 0.0)[:, None], other=0.0)
    merged = a.to(tl.float32) * (share_a / divisor)[:, None]
    merged += b.to(tl.float32) * (share_b / divisor)[:, None]
    tl.store(out_ptr + offset, merged.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(lse_ptr + row, tl.where(total > 0.0, shift + tl.log(total), peak), mask=is_row)


def merge_states(
    out_a: torch.Tensor,
    lse_a: torch.Tensor,
    out_b: torch.Tensor,
    lse_b: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
    lse: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, lse) of attention over both sets of keys.

    out_a, out_b: [T, H, D], contiguous; lse_a, lse_b: float32 [T, H], natural logarithm, -inf where
    a side has no keys (its output is not read). out and lse may be out_a and lse_a.
    """
    if out_a.shape != out_b.shape or lse_a.shape != lse_b.shape or lse_a.shape != out_a.shape[:2]:
        raise ValueError(
            f"states of shapes {tuple(out_a.shape)}, {tuple(lse_a.shape)} and "
            f"{tuple(out_b.shape)}, {tuple(lse_b.shape)} do not fit: [T, H, D] and [T, H] each"
        )
    if not all(tensor.is_contiguous() for tensor in (out_a, out_b, lse_a, lse_b)):
        raise ValueError("states must be contiguous")
    out = torch.empty_like(out_a) if out is None else out
    lse = torch.empty_like(lse_a) if lse is None else lse
    num_rows, head_dim = lse_a.numel(), out_a.shape[2]
    rows = 16
    _merge_states_kernel[(triton.cdiv(num_rows, rows),)](
        out_a,
        lse_a,
        out_b,
        lse_b,
        out,
        lse,
        num_rows,
        HEAD_DIM=head_dim,
        DIM=triton.next_power_of_2(head_dim),
        ROWS=rows,
        num_warps=4,
    )
    return out, lse
