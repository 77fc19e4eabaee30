"""Captured decode steps: the whole forward pass of a batch as one launch.

A graph replays the same kernels on the same memory, so a step is copied into fixed buffers, and a
batch is padded to the next captured size: rows of padding have seq_len 0 and slot -1. Knows shapes
and buffers. Does not know requests, nor how attention is computed.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.attention.backend import AttentionBackend, AttentionBatch
from engine.errors import OutOfMemoryError
from engine.loader import is_out_of_memory
from engine.models.causal_lm import CausalLM

NUM_WARM_UPS = 2


def capture_sizes(max_num_seqs: int, sizes: Sequence[int] | None = None) -> list[int]:
    """Batch sizes to capture, ascending; max_num_seqs is always among them.

    Args:
        max_num_seqs: Most rows of a batch.
        sizes: Asked for; None: 1, 2, 4, then every 8 up to 256 and every 16 beyond.
    """
    if sizes is None:
        sizes = [1, 2, 4, *range(8, 257, 8), *range(272, max_num_seqs + 1, 16)]
    return sorted({size for size in sizes if size < max_num_seqs} | {max_num_seqs})


class GraphBuffers:
    """The memory that all graphs read: a decode batch of the largest size.

    Args:
        max_rows: Its rows.
        max_blocks: Blocks of the longest request.
        num_groups: KV-cache groups.
        device: Where.
    """

    def __init__(
        self, max_rows: int, max_blocks: int, num_groups: int, device: torch.device
    ) -> None:
        self.token_ids = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self.positions = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self.query_start_loc = torch.arange(max_rows + 1, dtype=torch.int32, device=device)
        self.seq_lens = torch.zeros(max_rows, dtype=torch.int32, device=device)
        self.block_tables = [
            torch.zeros(max_rows, max_blocks, dtype=torch.int32, device=device)
            for _ in range(num_groups)
        ]
        self.slot_mappings = [
            torch.full((max_rows,), -1, dtype=torch.int64, device=device) for _ in range(num_groups)
        ]

    def batch(self, num_rows: int, max_seq_len: int) -> AttentionBatch:
        """The first rows as a batch; its numbers on the host are upper bounds."""
        return AttentionBatch(
            num_tokens=num_rows,
            num_rows=num_rows,
            num_decode_rows=num_rows,
            max_query_len=1,
            max_seq_len=max_seq_len,
            positions=self.positions[:num_rows],
            query_start_loc=self.query_start_loc[: num_rows + 1],
            seq_lens=self.seq_lens[:num_rows],
            block_tables=tuple(table[:num_rows] for table in self.block_tables),
            slot_mappings=tuple(slots[:num_rows] for slots in self.slot_mappings),
            query_lens_cpu=np.ones(num_rows, dtype=np.int32),
            seq_lens_cpu=np.full(num_rows, max_seq_len, dtype=np.int32),
        )

    def fill(self, token_ids: Tensor, batch: AttentionBatch, size: int) -> None:
        """Copy a step in and make the rows up to `size` padding."""
        rows = batch.num_rows
        self.token_ids[:rows].copy_(token_ids)
        self.positions[:rows].copy_(batch.positions)
        self.seq_lens[:rows].copy_(batch.seq_lens)
        for own, table in zip(self.block_tables, batch.block_tables, strict=True):
            own[:rows, : table.shape[1]].copy_(table)
        for mapping, slots in zip(self.slot_mappings, batch.slot_mappings, strict=True):
            mapping[:rows].copy_(slots)
        if rows < size:
            self.token_ids[rows:size].zero_()
            self.positions[rows:size].zero_()
            self.seq_lens[rows:size].zero_()
            for mapping in self.slot_mappings:
                mapping[rows:size].fill_(-1)


class CudaGraphs:
    """Decode steps of a model, captured for some batch sizes.

    Args:
        model: The model.
        backend: Its attention; must support capture.
        sizes: Batch sizes, ascending.
        max_model_len: Most tokens of a request.
        buffers: Fixed memory for a batch of the largest size.
    """

    def __init__(
        self,
        model: CausalLM,
        backend: AttentionBackend,
        sizes: Sequence[int],
        max_model_len: int,
        buffers: GraphBuffers,
    ) -> None:
        self._model = model
        self._backend = backend
        self._sizes = list(sizes)
        self._max_model_len = max_model_len
        self._buffers = buffers
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._hidden: dict[int, Tensor] = {}
        # Whatever a step planned must live as long as its graph, which reads it.
        self._steps: dict[int, object] = {}

    @torch.inference_mode()
    def capture(self) -> None:
        """Capture every size, the largest first, so that the smaller ones reuse its memory.

        Raises:
            OutOfMemoryError: The graphs do not fit beside the KV cache.
        """
        pool = None
        size = 0
        stream = torch.cuda.current_stream() if torch.cuda.is_available() else None
        try:
            for size in reversed(self._sizes):
                graph = self._capture(size, pool)
                pool = pool or graph.pool()
        except (MemoryError, RuntimeError) as error:
            if stream is not None:
                torch.cuda.set_stream(stream)  # a capture that breaks off leaves its own
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"no memory left to capture a CUDA graph of {size} rows: lower "
                "gpu_memory_utilization or cudagraph_capture_sizes, or set enforce_eager=True"
            ) from error

    def _capture(self, size: int, pool: Any) -> torch.cuda.CUDAGraph:
        batch = self._buffers.batch(size, self._max_model_len)
        token_ids = self._buffers.token_ids[:size]
        step = self._backend.build(batch)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(NUM_WARM_UPS):  # kernels compile and libraries allocate here
                self._model(token_ids, batch.positions, step)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            self._hidden[size] = self._model(token_ids, batch.positions, step)
        self._graphs[size] = graph
        self._steps[size] = step
        return graph

    def covers(self, batch: AttentionBatch) -> bool:
        """Whether a step of this shape has been captured."""
        only_decodes = batch.num_decode_rows == batch.num_rows
        return only_decodes and batch.num_rows <= self._sizes[-1]

    def run(self, token_ids: Tensor, batch: AttentionBatch) -> Tensor:
        """Replay a step.

        Args:
            token_ids: [R] int64.
            batch: A batch that is covered.

        Returns:
            [R, hidden], overwritten by the next call.
        """
        size = self._sizes[bisect_left(self._sizes, batch.num_rows)]
        self._buffers.fill(token_ids, batch, size)
        self._graphs[size].replay()
        return self._hidden[size][: batch.num_rows]
