"""The interface between models, batches and attention: what a step knows and what a layer asks.

Knows the layout of a flattened batch and of the paged KV cache. Does not know how attention is
computed, what a request is, or which blocks the scheduler chose.

The KV cache of one layer is one tensor [2, num_blocks, num_kv_heads, block_size, head_dim]: keys
at [0], values at [1]. Block 0 is the null block: nothing is ever read from it or written to it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ConfigError

BACKENDS = {
    "triton": ("engine.attention.triton_backend", "TritonBackend"),
    "torch": ("engine.attention.torch_backend", "TorchBackend"),
    "reference": ("engine.attention.reference", "ReferenceBackend"),
}


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """What one layer's attention is.

    `scale` multiplies q·k. `sliding_window` counts the tokens attended, the current one included;
    None attends to all. `softcap` c > 0 replaces a score s by c·tanh(s / c); 0 is off. `group` is
    the KV-cache group whose block table and slots the layer uses.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    sliding_window: int | None = None
    softcap: float = 0.0
    group: int = 0


@dataclass(slots=True)
class AttentionBatch:
    """The shape of one step: T tokens of R rows, flattened, all tensors on the device.

    Rows with exactly one query token come first (`num_decode_rows` of them), then all others, each
    part in the scheduler's order. The query tokens of a row are its last ones: row r holds
    positions seq_lens[r] - query_len[r] … seq_lens[r] - 1. Rows that only pad a captured graph
    have seq_len 0, and padding tokens have slot -1; their outputs mean nothing.

    positions [T] int64; query_start_loc [R + 1] int32; seq_lens [R] int32, KV tokens including this
    step's; per KV-cache group block_tables [R, W] int32 and slot_mappings [T] int64
    (block * block_size + offset, -1 = do not write); query_lens_cpu, seq_lens_cpu: [R] int32 numpy.
    """

    num_tokens: int
    num_rows: int
    num_decode_rows: int
    max_query_len: int
    max_seq_len: int
    positions: Tensor
    query_start_loc: Tensor
    seq_lens: Tensor
    block_tables: tuple[Tensor, ...]
    slot_mappings: tuple[Tensor, ...]
    query_lens_cpu: np.ndarray
    seq_lens_cpu: np.ndarray

    def check_integrity(self) -> None:
        """Assert that the parts fit together. For tests and debugging: it waits for the device."""
        starts = self.query_start_loc.cpu().numpy()
        assert self.positions.shape == (self.num_tokens,)
        assert starts.shape == (self.num_rows + 1,)
        assert self.seq_lens.shape == (self.num_rows,)
        assert (self.seq_lens.cpu().numpy() == self.seq_lens_cpu).all()
        assert (np.diff(starts) == self.query_lens_cpu).all()
        assert starts[0] == 0
        assert starts[-1] <= self.num_tokens
        assert (self.query_lens_cpu[: self.num_decode_rows] == 1).all()
        assert self.query_lens_cpu.max(initial=0) <= self.max_query_len
        assert self.seq_lens_cpu.max(initial=0) <= self.max_seq_len
        for block_table, slots in zip(self.block_tables, self.slot_mappings, strict=True):
            assert block_table.shape[0] == self.num_rows
            assert slots.shape == (self.num_tokens,)


class AttentionStep(Protocol):
    """Attention of every layer within one step."""

    def forward(self, layer_index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Rotate q and k, write k and v to the layer's cache, attend.

        Args:
            layer_index: index into the specs of the backend.
            q: [T, num_heads, head_dim], not rotated; rows may be strided (a slice of a fused
                projection), the last dimension is contiguous.
            k, v: [T, num_kv_heads, head_dim], likewise.

        Returns:
            [T, num_heads, head_dim] in q's dtype.
        """
        ...


class AttentionBackend(ABC):
    """Attention over the paged caches of a model's layers.

    `build` is called once a step and may plan; the step's `forward` is called once a layer.
    """

    supports_cuda_graph: bool = False

    def __init__(
        self,
        specs: Sequence[AttentionSpec],
        cos_sin_cache: Tensor,
        kv_caches: Sequence[Tensor],
        block_size: int,
    ) -> None:
        """Keep what does not change between steps.

        Args:
            specs: one a layer.
            cos_sin_cache: [max_position, head_dim] float32, cosines then sines of head_dim / 2
                frequencies.
            kv_caches: one a layer, [2, num_blocks, num_kv_heads, block_size, head_dim].
            block_size: tokens in a block.
        """
        if len(specs) != len(kv_caches):
            raise ConfigError(
                f"{len(kv_caches)} KV caches for {len(specs)} layers: allocate one a layer"
            )
        self.specs = list(specs)
        self.cos_sin_cache = cos_sin_cache
        self.kv_caches = list(kv_caches)
        self.block_size = block_size

    @abstractmethod
    def build(self, batch: AttentionBatch) -> AttentionStep:
        """Prepare one step; the result is valid until the next call."""


def backend_class(name: str, device: torch.device) -> type[AttentionBackend]:
    """The backend called `name`; "auto" is triton on a GPU and torch elsewhere.

    Raises:
        ConfigError: no such backend.
    """
    if name == "auto":
        name = "triton" if device.type == "cuda" else "torch"
    if name not in BACKENDS:
        raise ConfigError(
            f"attention_backend {name!r} is unknown: choose one of auto, {', '.join(BACKENDS)}"
        )
    module, attribute = BACKENDS[name]
    backend: type[AttentionBackend] = getattr(import_module(module), attribute)
    return backend
