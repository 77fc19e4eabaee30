"""Paged attention as its definition says it, in float64, one row after the other.

Knows the layouts of `engine.attention.backend`. Shares no code with the fast backends, so that a
test which compares the two proves something; speed is no concern.
"""

import torch
from torch import Tensor

from engine.attention.backend import AttentionBackend, AttentionBatch, AttentionSpec


class ReferenceBackend(AttentionBackend):
    """softmax(scale · q·kᵀ) v in float64; keys and values are rounded once, when cached."""

    def build(self, batch: AttentionBatch) -> "ReferenceStep":
        """Prepare one step."""
        return ReferenceStep(self, batch)


class ReferenceStep:
    """One step of the reference backend."""

    def __init__(self, backend: ReferenceBackend, batch: AttentionBatch) -> None:
        self._backend = backend
        self._batch = batch

    def forward(self, layer_index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `AttentionStep.forward`; rows and tokens of padding get zeros."""
        backend, batch = self._backend, self._batch
        spec, cache = backend.specs[layer_index], backend.kv_caches[layer_index]
        cos_sin = backend.cos_sin_cache.double()[batch.positions]
        queries, keys = rotate(q.double(), cos_sin), rotate(k.double(), cos_sin)
        _write(cache, keys, v, batch.slot_mappings[spec.group], backend.block_size)
        out = torch.zeros_like(q, dtype=torch.float64)
        starts = batch.query_start_loc.tolist()
        for row, seq_len in enumerate(batch.seq_lens.tolist()):
            tokens = slice(starts[row], starts[row + 1])
            if seq_len > 0:
                block_table = batch.block_tables[spec.group][row]
                out[tokens] = _attend(queries[tokens], cache, block_table, seq_len, spec)
        return out.to(q.dtype)


def rotate(x: Tensor, cos_sin: Tensor) -> Tensor:
    """Rotate pairs (i, i + D/2) of x [T, heads, D] by the angles whose cosines and sines are given.

    cos_sin [T, D] holds D/2 cosines, then D/2 sines (RoFormer, arXiv:2104.09864, in the layout of
    GPT-NeoX).
    """
    cos, sin = cos_sin[:, None].chunk(2, dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _write(cache: Tensor, keys: Tensor, values: Tensor, slots: Tensor, block_size: int) -> None:
    """Store keys and values [T, kv_heads, D] in their slots, except where a slot is -1."""
    written = slots >= 0
    blocks, offsets = slots[written] // block_size, slots[written] % block_size
    cache[0][blocks, :, offsets] = keys[written].to(cache.dtype)
    cache[1][blocks, :, offsets] = values[written].to(cache.dtype)


def _attend(
    queries: Tensor, cache: Tensor, block_table: Tensor, seq_len: int, spec: AttentionSpec
) -> Tensor:
    """Attention of one row's last queries [n, heads, D] over its seq_len cached tokens."""
    block_size = cache.shape[3]
    last = torch.arange(seq_len - len(queries), seq_len, device=queries.device)
    window = spec.sliding_window or seq_len
    # what no query sees is not even read: those blocks may be gone
    first = max(0, seq_len - len(queries) - window + 1)
    visible = torch.arange(first, seq_len, device=queries.device)
    blocks, offsets = block_table[visible // block_size].long(), visible % block_size
    repeats = spec.num_heads // spec.num_kv_heads
    keys, values = (
        part[blocks, :, offsets].double().repeat_interleave(repeats, dim=1) for part in cache
    )
    scores = torch.einsum("qhd,khd->hqk", queries, keys) * spec.scale
    if spec.softcap > 0.0:
        scores = spec.softcap * torch.tanh(scores / spec.softcap)
    hidden = (visible > last[:, None]) | (visible <= last[:, None] - window)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
    return torch.einsum("hqk,khd->qhd", weights, values)
