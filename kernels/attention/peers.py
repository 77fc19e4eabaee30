"""Attention of other implementations, for benchmarks on a GPU.

Knows how to call them on the keys and values that the benchmark's inputs hold a second time as
contiguous tensors: none of these reads pages, and gathering the pages is not counted. All rows of
such a case have the same length.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def _sdpa(backend: SDPBackend) -> Callable[..., torch.Tensor]:
    def run(**inputs: Any) -> torch.Tensor:
        q, k, v, is_causal = _contiguous(inputs)
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(
                q, k, v, is_causal=is_causal, scale=inputs["scale"], enable_gqa=True
            )

    run.__doc__ = f"torch's SDPA, {backend.name}: contiguous keys, no pages, no log-sum-exp."
    return run


def flex(**inputs: Any) -> torch.Tensor:
    """torch's flex_attention, compiled: contiguous keys, no pages."""
    q, k, v, is_causal = _contiguous(inputs)
    mask = _causal_mask(q.shape[2], str(q.device)) if is_causal else None
    return _compiled_flex()(q, k, v, block_mask=mask, scale=inputs["scale"], enable_gqa=True)


def _contiguous(
    inputs: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]:
    """q [B, Hq, M, D], k and v [B, Hkv, N, D], and whether it is causal; raises for other cases."""
    if inputs["sliding_window"] or inputs["softcap"] or "k" not in inputs:
        raise NotImplementedError("this peer has no window, no soft cap and no ragged batch")
    k, v = inputs["k"], inputs["v"]
    q = inputs["q"].unflatten(0, (k.shape[0], -1)).transpose(1, 2)
    if q.shape[2] not in (1, k.shape[2]):
        raise NotImplementedError("SDPA aligns a causal mask with the first key, not with the last")
    return q, k, v, q.shape[2] > 1


@cache
def _compiled_flex() -> Callable[..., torch.Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


@cache
def _causal_mask(length: int, device: str) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def is_seen(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return query >= key

    return create_block_mask(is_seen, None, None, length, length, device=device)


PEERS: dict[str, Callable[..., torch.Tensor]] = {
    "sdpa_flash": _sdpa(SDPBackend.FLASH_ATTENTION),
    "sdpa_cudnn": _sdpa(SDPBackend.CUDNN_ATTENTION),
    "sdpa_efficient": _sdpa(SDPBackend.EFFICIENT_ATTENTION),
    "flex_attention": flex,
}
