"""What the attention entry points take: checked, and turned into what the kernels are told.

Knows shapes and types of arguments; launches nothing. Shapes: q and out [T, Hq, D]; k_cache and
v_cache [num_blocks, Hkv, block_size, D]; block_table int32 [R, W]; seq_lens int32 [R];
query_start_loc int32 [R + 1].
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl

from kernels.attention.config import LaunchConfig, next_power_of_2
from kernels.target import Target

LOG2_E = math.log2(math.e)
MAX_HEAD_DIM = 256
DOT_DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@dataclass(frozen=True)
class Shape:
    """The numbers that a launch configuration depends on."""

    num_tokens: int
    num_rows: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    block_size: int
    element_size: int

    @property
    def group(self) -> int:
        """Query heads that share one KV head."""
        return self.num_heads // self.num_kv_heads

    @property
    def padded_dim(self) -> int:
        """The tile's width: a power of two, at least what an MMA needs."""
        return max(16, next_power_of_2(self.head_dim))


def check_shape(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    target: Target,
) -> Shape:
    """The shape of a call; raises ValueError for one that the kernels do not take."""
    num_tokens, num_heads, head_dim = q.shape
    _, num_kv_heads, block_size, cache_dim = k_cache.shape
    if k_cache.shape != v_cache.shape or cache_dim != head_dim:
        raise ValueError(
            f"q, k_cache and v_cache of shapes {tuple(q.shape)}, {tuple(k_cache.shape)} and "
            f"{tuple(v_cache.shape)} do not fit: [T, Hq, D] and twice [blocks, Hkv, block_size, D]"
        )
    if num_heads % num_kv_heads:
        raise ValueError(f"{num_heads} query heads are no multiple of {num_kv_heads} KV heads")
    if head_dim > MAX_HEAD_DIM or head_dim % 8:
        raise ValueError(f"head_dim {head_dim}: the kernels take multiples of 8 to {MAX_HEAD_DIM}")
    if block_size & (block_size - 1):
        raise ValueError(f"block_size {block_size} is no power of two: use 16, 32, 64 or 128")
    if q.stride(2) != 1 or k_cache.stride(3) != 1 or v_cache.stride(3) != 1:
        raise ValueError("the last dimension of q, k_cache and v_cache must be contiguous")
    if block_table.stride(1) != 1:
        raise ValueError("a row of block_table must be contiguous")
    _check_types(q, k_cache, target)
    return Shape(
        num_tokens,
        seq_lens.shape[0],
        num_heads,
        num_kv_heads,
        head_dim,
        block_size,
        k_cache.element_size(),
    )


def _check_types(q: torch.Tensor, k_cache: torch.Tensor, target: Target) -> None:
    is_float8 = k_cache.dtype == torch.float8_e4m3fn
    if q.dtype not in DOT_DTYPES or (k_cache.dtype != q.dtype and not is_float8):
        raise ValueError(
            f"q of {q.dtype} with a cache of {k_cache.dtype}: give both float32, float16 or "
            "bfloat16, or the cache float8_e4m3fn"
        )
    if is_float8 and not target.has_float8:
        raise ValueError(f"a float8 cache needs compute capability 8.9, this is {target.arch / 10}")


def strides_of(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    out: torch.Tensor,
) -> tuple[int, ...]:
    """The strides that the kernels are told, in their order."""
    caches = (*k_cache.stride()[:3], *v_cache.stride()[:3])
    return *q.stride()[:2], *caches, block_table.stride(0), *out.stride()[:2]


def constants_of(
    shape: Shape,
    config: LaunchConfig,
    q: torch.Tensor,
    k_cache: torch.Tensor,
    lse: torch.Tensor | None,
    sliding_window: int,
    softcap: float,
) -> dict[str, Any]:
    """What both kernels are compiled for, and how they are launched."""
    return {
        "GROUP": shape.group,
        "HEAD_DIM": shape.head_dim,
        "DIM": shape.padded_dim,
        "PAGE": shape.block_size,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "HAS_LSE": lse is not None,
        "HAS_WINDOW": sliding_window > 0,
        "HAS_SOFTCAP": softcap > 0.0,
        "DOT_DTYPE": dot_dtype(q, k_cache),
        "PRECISION": dot_precision(q),
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
    }


def dot_dtype(q: torch.Tensor, k_cache: torch.Tensor) -> tl.dtype:
    """The type of the matrix products.

    A float8 cache is computed in float16, whose conversion the hardware has and which holds every
    float8 value; queries are float16 then too (they are far below its 65504).
    """
    if k_cache.dtype == torch.float8_e4m3fn and q.dtype == torch.bfloat16:
        return tl.float16
    return DOT_DTYPES[q.dtype]


def dot_precision(q: torch.Tensor) -> str:
    """float32 is computed as such, not as TF32."""
    return "ieee" if q.dtype == torch.float32 else "tf32"


def score_factors(scale: float, softcap: float, k_scale: float) -> tuple[float, float]:
    """(multiplier, pre_tanh) of tile.shape_scores and tile.online_softmax; scores in log2."""
    if scale <= 0.0 or k_scale <= 0.0 or softcap < 0.0:
        raise ValueError(f"scale {scale}, k_scale {k_scale} must be > 0 and softcap {softcap} >= 0")
    if softcap > 0.0:
        return softcap * LOG2_E, 2.0 * LOG2_E * scale * k_scale / softcap
    return scale * k_scale * LOG2_E, 0.0
