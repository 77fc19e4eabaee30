"""What the KV-cache kernels compute, in float64 and with plain loops. The oracle of their tests."""

import torch
from torch import Tensor

FLOAT8_MAX = 448.0


def rotate(x: Tensor, cos_sin: Tensor, positions: Tensor) -> Tensor:
    """x [T, heads, D] turned by the angles of its positions, float64 (neox pairing)."""
    cos, sin = cos_sin.double()[positions].unsqueeze(1).chunk(2, dim=-1)
    first, second = x.double().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def page(values: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
    """float64 values as a cache of `dtype` holds them, in that dtype."""
    if dtype == torch.float8_e4m3fn:
        values = (values / scale).clamp(-FLOAT8_MAX, FLOAT8_MAX)
    # rounded from float32, as every kernel does: float64 to float8 would round once, not twice
    return values.float().to(dtype)


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
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated q, and the caches with k and v in their slots (caches in their own dtype)."""
    rotated_k = page(rotate(k, cos_sin, positions), k_cache.dtype, k_scale)
    pages_v = page(v.double(), v_cache.dtype, v_scale)
    k_cache, v_cache = k_cache.clone(), v_cache.clone()
    block_size = k_cache.shape[2]
    for token, slot in enumerate(slot_mapping.tolist()):
        if slot >= 0:
            k_cache[slot // block_size, :, slot % block_size] = rotated_k[token]
            v_cache[slot // block_size, :, slot % block_size] = pages_v[token]
    return rotate(q, cos_sin, positions), k_cache, v_cache


def block_copy(kv_caches: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Caches [layers, 2, num_blocks, ...] after block source[i] went over block target[i]."""
    result = kv_caches.clone()
    for of, to in zip(source.tolist(), target.tolist(), strict=True):
        result[:, :, to] = kv_caches[:, :, of]
    return result
