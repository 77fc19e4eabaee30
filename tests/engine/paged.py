"""A minimal runner: sequences in a paged KV cache, batches of any chunks, hidden states back.

Knows batches and caches; stands in for scheduler and model runner in tests of what lies below them.
"""

import numpy as np
import torch
from torch import Tensor

from engine.attention.backend import AttentionBackend, AttentionBatch
from engine.attention.reference import ReferenceBackend
from engine.models.causal_lm import CausalLM


class PagedRun:
    """Sequences that a model works through in chunks; blocks are dealt in a shuffled order."""

    def __init__(
        self,
        model: CausalLM,
        sequences: list[list[int]],
        block_size: int = 4,
        backend: type[AttentionBackend] = ReferenceBackend,
        cache_dtype: torch.dtype | None = None,
        device: str = "cpu",
    ) -> None:
        self.model, self.block_size, self.device = model, block_size, torch.device(device)
        self.sequences = sequences
        self.num_computed = [0] * len(sequences)
        self.num_groups = 1 + max(spec.group for spec in model.attention_specs)
        self._deal_blocks()
        dtype = cache_dtype or model.embedding.weight.dtype
        shapes = [
            (2, self.num_blocks + 1, spec.num_kv_heads, block_size, spec.head_dim)
            for spec in model.attention_specs
        ]
        # what was never written must never be read: NaN would show
        caches = [torch.full(shape, float("nan")).to(self.device, dtype) for shape in shapes]
        self.backend = backend(model.attention_specs, model.cos_sin_cache, caches, block_size)

    def _deal_blocks(self) -> None:
        width = max(-(-len(tokens) // self.block_size) for tokens in self.sequences)
        count = len(self.sequences) * width
        self.num_blocks = count * self.num_groups
        order = np.random.default_rng(0).permutation(self.num_blocks) + 1
        self.block_tables = order.reshape(self.num_groups, len(self.sequences), width)

    def step(self, chunks: dict[int, int]) -> dict[int, Tensor]:
        """Run the next `chunks[sequence]` tokens of some sequences; logits [chunk, vocab] each."""
        rows = sorted(chunks, key=lambda index: chunks[index] != 1)
        tokens, positions = [], []
        for row in rows:
            start, end = self.num_computed[row], self.num_computed[row] + chunks[row]
            tokens += self.sequences[row][start:end]
            positions += range(start, end)
            self.num_computed[row] = end
        batch = self._batch(rows, np.array([chunks[row] for row in rows]), np.array(positions))
        batch.check_integrity()
        token_ids = torch.tensor(tokens, device=self.device)
        hidden = self.model(token_ids, batch.positions, self.backend.build(batch))
        logits = self.model.compute_logits(hidden).split([chunks[row] for row in rows])
        return dict(zip(rows, logits, strict=True))

    def all_logits(self, chunk: int) -> list[Tensor]:
        """Work through all sequences, at most `chunk` tokens each a step; [length, vocab] each."""
        logits: list[list[Tensor]] = [[] for _ in self.sequences]
        while True:
            left = {
                row: min(chunk, len(tokens) - done)
                for row, (tokens, done) in enumerate(
                    zip(self.sequences, self.num_computed, strict=True)
                )
                if done < len(tokens)
            }
            if not left:
                return [torch.cat(parts) for parts in logits]
            for row, part in self.step(left).items():
                logits[row].append(part)

    def _batch(self, rows: list[int], lengths: np.ndarray, positions: np.ndarray) -> AttentionBatch:
        seq_lens = np.array([self.num_computed[row] for row in rows], dtype=np.int32)
        row_of_token = np.repeat(rows, lengths)
        tables = self.block_tables[:, rows].astype(np.int32)
        self._forget(tables, seq_lens - lengths)
        blocks = self.block_tables[:, row_of_token, positions // self.block_size]
        slots = blocks * self.block_size + positions % self.block_size
        return AttentionBatch(
            num_tokens=len(positions),
            num_rows=len(rows),
            num_decode_rows=int((lengths == 1).sum()),
            max_query_len=int(lengths.max()),
            max_seq_len=int(seq_lens.max()),
            positions=self._put(positions.astype(np.int64)),
            query_start_loc=self._put(np.concatenate(([0], lengths.cumsum())).astype(np.int32)),
            seq_lens=self._put(seq_lens),
            block_tables=tuple(self._put(table) for table in tables),
            slot_mappings=tuple(self._put(slot.astype(np.int64)) for slot in slots),
            query_lens_cpu=lengths.astype(np.int32),
            seq_lens_cpu=seq_lens,
        )

    def _forget(self, tables: np.ndarray, first_positions: np.ndarray) -> None:
        """Put the null block where no layer of a group can see, as a scheduler does."""
        for group, table in enumerate(tables):
            specs = [spec for spec in self.model.attention_specs if spec.group == group]
            if all(spec.sliding_window for spec in specs):
                window = max(spec.sliding_window or 0 for spec in specs)
                unseen = np.maximum(first_positions - window + 1, 0) // self.block_size
                table[np.arange(table.shape[1]) < unseen[:, None]] = 0

    def _put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.copy()).to(self.device)
