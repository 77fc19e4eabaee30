"""Rotary embedding of q and k and the write of k and v into the paged cache, in one pass.

Knows the layout of the cache and the neox pairing (element i turns with element i + D/2; Su et
al., RoFormer). One program takes one token with all its heads: q, k and v are read once, in
16-byte pieces, cos and sin once a token. Knows nothing of block tables: slots come in.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.target import target_of

FLOAT8_MAX = tl.constexpr(448.0)
FLOAT8 = torch.float8_e4m3fn


@triton.jit
def _pages(values, scale, dtype: tl.constexpr):
    """Values as the cache holds them: float8 is divided by the scale and saturates."""
    if dtype == tl.float8e4nv:
        scaled = values.to(tl.float32) / scale
        return tl.clamp(scaled, -FLOAT8_MAX, FLOAT8_MAX).to(dtype)
    else:
        return values.to(dtype)


@triton.jit
def _load_halves(row_ptr, head_stride, head, num_heads, half: tl.constexpr, HALF: tl.constexpr):
    """Both halves [heads, HALF] of a token's heads, their offsets and the mask."""
    element = tl.arange(0, HALF)
    at = head[:, None] * head_stride + element[None, :]
    inside = (head[:, None] < num_heads) & (element[None, :] < half)
    first = tl.load(row_ptr + at, mask=inside)
    second = tl.load(row_ptr + at + half, mask=inside)
    return first, second, inside


@triton.jit
def _rotate(first, second, cos, sin):
    first, second = first.to(tl.float32), second.to(tl.float32)
    return first * cos - second * sin, second * cos + first * sin


@triton.jit
def _rotary_cache_write_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    q_out_ptr,
    cos_sin_ptr,
    position_ptr,
    slot_ptr,
    k_cache_ptr,
    v_cache_ptr,
    k_scale,
    v_scale,
    q_stride,
    q_head_stride,
    k_stride,
    k_head_stride,
    v_stride,
    v_head_stride,
    q_out_stride,
    q_out_head_stride,
    k_block_stride,
    k_cache_head_stride,
    k_slot_stride,
    v_block_stride,
    v_cache_head_stride,
    v_slot_stride,
    NUM_Q_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HALF_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    Q_TILE: tl.constexpr,
    KV_TILE: tl.constexpr,
    HALF: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    position = tl.load(position_ptr + token)
    slot = tl.load(slot_ptr + token)
    kv_head = tl.arange(0, KV_TILE)
    k_row, v_row = k_ptr + token * k_stride, v_ptr + token * v_stride
    # everything is read before anything is written: loads stay in flight together
    k1, k2, kv_inside = _load_halves(k_row, k_head_stride, kv_head, NUM_KV_HEADS, HALF_DIM, HALF)
    v1, v2, _ = _load_halves(v_row, v_head_stride, kv_head, NUM_KV_HEADS, HALF_DIM, HALF)
    element = tl.arange(0, HALF)
    angle_ptr = cos_sin_ptr + position * (2 * HALF_DIM) + element
    cos = tl.load(angle_ptr, mask=element < HALF_DIM, other=0.0)[None, :]
    sin = tl.load(angle_ptr + HALF_DIM, mask=element < HALF_DIM, other=0.0)[None, :]
    for first_head in tl.static_range(0, NUM_Q_HEADS, Q_TILE):
        q_head = first_head + tl.arange(0, Q_TILE)
        q1, q2, inside = _load_halves(
            q_ptr + token * q_stride, q_head_stride, q_head, NUM_Q_HEADS, HALF_DIM, HALF
        )
        q1, q2 = _rotate(q1, q2, cos, sin)
        to_q = q_out_ptr + token * q_out_stride
        to_q = to_q + q_head[:, None] * q_out_head_stride + element[None, :]
        tl.store(to_q, q1.to(q_out_ptr.dtype.element_ty), mask=inside)
        tl.store(to_q + HALF_DIM, q2.to(q_out_ptr.dtype.element_ty), mask=inside)
    if slot >= 0:
        block, offset = slot // BLOCK_SIZE, slot % BLOCK_SIZE
        dtype: tl.constexpr = k_cache_ptr.dtype.element_ty
        turned1, turned2 = _rotate(k1, k2, cos, sin)
        to_k = k_cache_ptr + block * k_block_stride + offset * k_slot_stride
        to_k = to_k + kv_head[:, None] * k_cache_head_stride + element[None, :]
        tl.store(to_k, _pages(turned1, k_scale, dtype), mask=kv_inside)
        tl.store(to_k + HALF_DIM, _pages(turned2, k_scale, dtype), mask=kv_inside)
        to_v = v_cache_ptr + block * v_block_stride + offset * v_slot_stride
        to_v = to_v + kv_head[:, None] * v_cache_head_stride + element[None, :]
        tl.store(to_v, _pages(v1, v_scale, dtype), mask=kv_inside)
        tl.store(to_v + HALF_DIM, _pages(v2, v_scale, dtype), mask=kv_inside)


def launch_config(num_q_heads: int, num_kv_heads: int, head_dim: int) -> dict[str, int]:
    """Tile sizes and warps: 16 to 64 bytes of q a thread, no more than 64 heads at once."""
    half = triton.next_power_of_2(head_dim // 2)
    q_tile = min(64, triton.next_power_of_2(num_q_heads))
    return {
        "Q_TILE": q_tile,
        "KV_TILE": triton.next_power_of_2(num_kv_heads),
        "HALF": half,
        "num_warps": min(8, max(1, q_tile * half // 512)),
    }


def rotary_cache_write(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos_sin: Tensor,
    positions: Tensor,
    slot_mapping: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    q_out: Tensor | None = None,
) -> Tensor:
    """Rotate q and k by their positions; write k and v to their slots. k and v stay as they are.

    Computed in float32 and rounded once. Two tokens with the same slot (never -1) race.

    Args:
        q: [T, num_q_heads, D]; k, v: [T, num_kv_heads, D]: views of one fused tensor or not,
            the last dimension contiguous. float32, bfloat16 or float16.
        cos_sin: [max_position, D] float32, contiguous: cos of D/2 angles, then sin.
        positions: [T] int64, below max_position.
        slot_mapping: [T] int64 = block * block_size + offset; -1 writes nothing.
        k_cache, v_cache: [num_blocks, num_kv_heads, block_size, D], the last dimension
            contiguous: float32, bfloat16, float16, or float8_e4m3fn, which holds k / k_scale and
            v / v_scale, saturated at 448.
        q_out: where rotated q goes, [T, num_q_heads, D]; None: into q itself.

    Returns:
        q_out, or q.
    """
    _check(q, k, cos_sin, k_cache)
    num_tokens, num_q_heads, head_dim = q.shape
    num_kv_heads = k.shape[1]
    out = q if q_out is None else q_out
    if num_tokens == 0:
        return out
    _rotary_cache_write_kernel[(num_tokens,)](
        q,
        k,
        v,
        out,
        cos_sin,
        positions,
        slot_mapping,
        k_cache,
        v_cache,
        k_scale,
        v_scale,
        *q.stride()[:2],
        *k.stride()[:2],
        *v.stride()[:2],
        *out.stride()[:2],
        *k_cache.stride()[:3],
        *v_cache.stride()[:3],
        NUM_Q_HEADS=num_q_heads,
        NUM_KV_HEADS=num_kv_heads,
        HALF_DIM=head_dim // 2,
        BLOCK_SIZE=k_cache.shape[2],
        **launch_config(num_q_heads, num_kv_heads, head_dim),
    )
    return out


def _check(q: Tensor, k: Tensor, cos_sin: Tensor, k_cache: Tensor) -> None:
    """Raise ValueError for shapes and types that the kernel does not take."""
    num_kv_heads, head_dim = k.shape[1], q.shape[2]
    if k_cache.shape[1] != num_kv_heads or k_cache.shape[3] != head_dim:
        raise ValueError(
            f"k_cache of shape {tuple(k_cache.shape)} does not hold {num_kv_heads} heads of "
            f"{head_dim}: expected [num_blocks, {num_kv_heads}, block_size, {head_dim}]"
        )
    if cos_sin.shape[1] != head_dim:
        raise ValueError(f"cos_sin has {cos_sin.shape[1]} columns, must have head_dim {head_dim}")
    if k_cache.dtype == FLOAT8 and not target_of(q.device).has_float8:
        raise ValueError("a float8_e4m3fn cache needs compute capability 8.9 or more: use bfloat16")
