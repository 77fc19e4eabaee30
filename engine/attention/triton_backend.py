"""Paged attention with our Triton kernels: one pass that rotates and caches, one that attends.

Knows which kernel is called with what. Everything a launch depends on is known on the host before
the step, so that a step can be captured in a CUDA graph. A cache of 8-bit floats holds keys and
values as they are (scale 1), which their range (448) allows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from triton import knobs

from engine.attention.backend import AttentionBackend, AttentionBatch, AttentionSpec
from kernels.attention.attention import paged_attention
from kernels.kv_cache.rotary_cache_write import rotary_cache_write
from workbench.errors import ConfigError

MAX_HEAD_DIM = 256


class TritonBackend(AttentionBackend):
    """Kernels for a GPU; elsewhere Triton interprets them, slowly."""

    supports_cuda_graph = True

    def __init__(
        self,
        specs: Sequence[AttentionSpec],
        cos_sin_cache: Tensor,
        kv_caches: Sequence[Tensor],
        block_size: int,
    ) -> None:
        """See `AttentionBackend`.

        Raises:
            ConfigError: A shape that the kernels do not take, or no GPU to run them on.
        """
        super().__init__(specs, cos_sin_cache, kv_caches, block_size)
        cure = "use attention_backend='torch'"
        device = kv_caches[0].device
        if device.type == "cpu" and not knobs.runtime.interpret:
            raise ConfigError(
                f"attention_backend='triton' needs a GPU, and device='cpu': {cure}, or set "
                "TRITON_INTERPRET=1 to try its kernels slowly"
            )
        if block_size & (block_size - 1):
            raise ConfigError(
                f"block_size={block_size} is no power of two, as attention_backend='triton' needs "
                f"it: use 16 or 32, or {cure}"
            )
        for head_dim in {spec.head_dim for spec in specs}:
            if head_dim % 8 or head_dim > MAX_HEAD_DIM:
                raise ConfigError(
                    f"head_dim={head_dim} of the model is no multiple of 8 up to {MAX_HEAD_DIM}, "
                    f"as attention_backend='triton' needs it: {cure}"
                )

        # decodes of a mixed batch run beside its prompt chunks: one reads, the other computes
        self.side_stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def build(self, batch: AttentionBatch) -> "TritonStep":
        """Prepare one step: nothing needs to be planned."""
        return TritonStep(self, batch)


class TritonStep:
    """One step of the Triton backend."""

    def __init__(self, backend: TritonBackend, batch: AttentionBatch) -> None:
        self._backend = backend
        self._batch = batch

    def forward(self, layer_index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `AttentionStep.forward`; q is rotated in place."""
        backend, batch = self._backend, self._batch
        spec = backend.specs[layer_index]
        k_cache, v_cache = backend.kv_caches[layer_index].unbind(0)
        queries = rotary_cache_write(
            q,
            k,
            v,
            backend.cos_sin_cache,
            batch.positions,
            batch.slot_mappings[spec.group],
            k_cache,
            v_cache,
        )
        return paged_attention(
            queries,
            k_cache,
            v_cache,
            batch.block_tables[spec.group],
            batch.seq_lens,
            batch.query_start_loc,
            num_decode_rows=batch.num_decode_rows,
            max_query_len=batch.max_query_len,
            max_seq_len=batch.max_seq_len,
            scale=spec.scale,
            sliding_window=spec.sliding_window or 0,
            softcap=spec.softcap,
            out=q.new_empty(q.shape),
            side_stream=backend.side_stream,
        )
