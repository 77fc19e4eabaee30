"""Paged attention with torch's own operations: pages are gathered, then SDPA attends to them.

The fast backend on a CPU, and one that runs on any device. Rows of like length are gathered
together into a workspace that is kept, since fresh memory of that size costs more than the
attention itself. Knows the layouts of `engine.attention.backend`; which rows go together is decided
in `buckets`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.attention.backend import AttentionBackend, AttentionBatch, AttentionSpec
from engine.attention.buckets import by_query_len, by_width
from engine.attention.value_bags import ValueBags
from workbench.errors import ConfigError

# Keys of a bucket, and those of them that may be padding: gathering so many in vain takes about as
# long as the calls of one more bucket.
WORKSPACE_BYTES = 4 << 20
SPARE_BYTES = 1 << 20


class TorchBackend(AttentionBackend):
    """Gathers pages and calls scaled_dot_product_attention."""

    def __init__(
        self,
        specs: Sequence[AttentionSpec],
        cos_sin_cache: Tensor,
        kv_caches: Sequence[Tensor],
        block_size: int,
    ) -> None:
        """See `AttentionBackend`.

        Raises:
            ConfigError: The cache holds 8-bit floats.
        """
        super().__init__(specs, cos_sin_cache, kv_caches, block_size)
        cache = self.kv_caches[0]
        if cache.dtype.itemsize == 1:
            raise ConfigError(
                f"attention_backend='torch' cannot read a KV cache of {cache.dtype}: set "
                "kv_cache_dtype='auto', or use attention_backend='triton'"
            )
        self.dtype = cache.dtype
        self.num_kv_heads, self.page_size = cache.shape[2], block_size * cache.shape[4]
        page_bytes = self.num_kv_heads * self.page_size * cache.dtype.itemsize
        self.max_pages = max(1, WORKSPACE_BYTES // page_bytes)
        self.spare_pages = max(1, SPARE_BYTES // page_bytes)
        self._workspaces = [cache.new_empty(0), cache.new_empty(0)]
        for cache in self.kv_caches:
            cache[:, 0].zero_()  # padding reads the null block, and 0 times NaN would be NaN

    def build(self, batch: AttentionBatch) -> "TorchStep":
        """Prepare one step."""
        return TorchStep(self, batch)

    def gather(self, part: int, cache: Tensor, bucket: "Bucket") -> Tensor:
        """Keys (part 0) or values (part 1) of a bucket, [rows, kv_heads, width * block_size, D]."""
        size = len(bucket.pages) * self.page_size
        if self._workspaces[part].numel() < size:
            self._workspaces[part] = cache.new_empty(size)
        out = self._workspaces[part][:size].view(-1, self.page_size)
        pages = cache[part].view(-1, self.page_size)
        torch.index_select(pages, 0, bucket.pages, out=out)
        return out.view(bucket.num_rows, self.num_kv_heads, -1, cache.shape[-1])


@dataclass(slots=True)
class Bucket:
    """Rows that attend together, their queries padded to the longest.

    Attributes:
        num_rows, query_len: Rows, and query tokens of each of them after padding.
        tokens: [rows * query_len] token indices, those of padding repeat the row's last token;
            None: all tokens of the batch in order.
        valid: Places in `tokens` that are no padding; None where there is none.
        pages: [rows * kv_heads * width] indices into the cache as pages of one head.
        bias: [rows, 1, query_len, width * block_size], added to the scores; None: causal from the
            first position on.
        bags: Where the values of decodes are summed in place; None where they are gathered.
    """

    num_rows: int
    query_len: int
    tokens: Tensor | None
    valid: Tensor | None
    pages: Tensor
    bias: Tensor | None
    bags: ValueBags | None = None


class TorchStep:
    """One step of the torch backend."""

    def __init__(self, backend: TorchBackend, batch: AttentionBatch) -> None:
        self._backend = backend
        cos_sin = backend.cos_sin_cache.index_select(0, batch.positions)[:, None]
        self._cos, self._sin = cos_sin.chunk(2, dim=-1)
        groups = range(len(batch.block_tables))
        self._writes = [_write_index(backend, batch.slot_mappings[group]) for group in groups]
        self._begun = [_begun_blocks(backend, batch, group) for group in groups]
        kinds = {(spec.group, spec.sliding_window) for spec in backend.specs}
        self._plans = {kind: _Planner(backend, batch, *kind).buckets() for kind in kinds}

    def forward(self, layer_index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `AttentionStep.forward`."""
        backend = self._backend
        spec, cache = backend.specs[layer_index], backend.kv_caches[layer_index]
        queries = _rotate(q, self._cos, self._sin, cache.dtype)
        keys = _rotate(k, self._cos, self._sin, cache.dtype)
        self._write(cache, spec.group, keys, v)
        plan = self._plans[spec.group, spec.sliding_window]
        if len(plan) == 1 and plan[0].tokens is None:
            return self._attend(queries, cache, spec, plan[0]).to(q.dtype)
        out = q.new_empty(q.shape)
        for bucket in plan:
            tokens = bucket.tokens
            assert tokens is not None
            attended = self._attend(queries.index_select(0, tokens), cache, spec, bucket)
            if bucket.valid is not None:
                tokens, attended = tokens[bucket.valid], attended[bucket.valid]
            out.index_copy_(0, tokens, attended.to(q.dtype))
        return out

    def _write(self, cache: Tensor, group: int, keys: Tensor, values: Tensor) -> None:
        index, written = self._writes[group]
        if len(self._begun[group]):
            cache.index_fill_(1, self._begun[group], 0)
        if written is not None:
            keys, values = keys[written], values[written]
        for part, new in enumerate((keys, values.to(cache.dtype))):
            width = cache.shape[-1]
            cache[part].view(-1, width).index_copy_(0, index, new.reshape(-1, width))

    def _attend(self, queries: Tensor, cache: Tensor, spec: AttentionSpec, rows: Bucket) -> Tensor:
        """Attention of a bucket: queries [rows * query_len, heads, D], output likewise."""
        keys = self._backend.gather(0, cache, rows)
        shape = (rows.num_rows, spec.num_kv_heads, -1, spec.head_dim)
        if rows.bags is not None:
            queries = queries.view(shape)
            return rows.bags.attend(queries, keys, cache[1], rows.bias, spec).flatten(1, 2)
        values = self._backend.gather(1, cache, rows)
        if rows.query_len == 1:
            # Heads that share keys become query positions: nothing is repeated.
            return _attend(queries.view(shape), keys, values, rows.bias, spec).view(queries.shape)
        padded = queries.view(rows.num_rows, rows.query_len, *queries.shape[1:]).transpose(1, 2)
        return _attend(padded, keys, values, rows.bias, spec).transpose(1, 2).reshape(queries.shape)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, spec: AttentionSpec) -> Tensor:
    if not spec.softcap:
        return functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=bias,
            is_causal=bias is None,
            scale=spec.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
    if q.shape[1] != k.shape[1]:
        repeats = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    scores = (q @ k.transpose(-1, -2)).float() * spec.scale
    scores = spec.softcap * torch.tanh(scores / spec.softcap)
    if bias is None:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    else:
        scores += bias
    return scores.softmax(dim=-1).to(v.dtype) @ v


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    """Rotate pairs (i, i + D/2) of x [T, heads, D] in float32, rounded once to `dtype`."""
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    first, second = x.float().chunk(2, dim=-1)
    half = x.shape[-1] // 2
    torch.mul(first, cos, out=out[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out[..., half:]).addcmul_(first, sin)
    return out.to(dtype)


def _write_index(backend: TorchBackend, slots: Tensor) -> tuple[Tensor, Tensor | None]:
    """([tokens * kv_heads] vectors of the cache to write, tokens to write or None for all)."""
    written = None
    if slots.device.type == "cpu" and bool((slots < 0).any()):
        written = (slots >= 0).nonzero().view(-1)
        slots = slots[written]
    # elsewhere a slot of -1 would make the host wait: padding writes to the null block instead
    blocks, offsets = slots.clamp(min=0) // backend.block_size, slots.clamp(min=0)
    offsets = offsets % backend.block_size
    heads = torch.arange(backend.num_kv_heads, device=slots.device)
    index = (blocks[:, None] * backend.num_kv_heads + heads) * backend.block_size
    return (index + offsets[:, None]).view(-1), written


def _begun_blocks(backend: TorchBackend, batch: AttentionBatch, group: int) -> Tensor:
    """Blocks that this step begins and does not fill.

    What an earlier owner left behind their ends might be NaN, which no mask can hide.
    """
    size = backend.block_size
    last_starts = batch.seq_lens_cpu // size * size
    is_begun = last_starts >= batch.seq_lens_cpu - batch.query_lens_cpu
    rows = np.flatnonzero(is_begun & (batch.seq_lens_cpu % size != 0))
    columns = torch.from_numpy((batch.seq_lens_cpu[rows] // size).astype(np.int64))
    table = batch.block_tables[group]
    return table[torch.from_numpy(rows).to(table.device), columns.to(table.device)].long()


class _Planner:
    """Makes the buckets of one KV-cache group and window."""

    def __init__(
        self, backend: TorchBackend, batch: AttentionBatch, group: int, window: int | None
    ) -> None:
        self._backend, self._batch, self._window = backend, batch, window
        self._table = batch.block_tables[group]
        self._device = batch.positions.device
        size = backend.block_size
        self._query_starts = np.cumsum(batch.query_lens_cpu) - batch.query_lens_cpu
        self._first_positions = batch.seq_lens_cpu - batch.query_lens_cpu
        # What no query sees is not even read: those blocks may be somebody else's by now.
        lowest = self._first_positions - (window or batch.max_seq_len) + 1
        self._first_pages = np.maximum(lowest, 0) // size
        self._ends = -(-batch.seq_lens_cpu // size)
        self._widths = np.maximum(self._ends - self._first_pages, 1)

    def buckets(self) -> list[Bucket]:
        """All rows of the batch, each in one bucket."""
        batch, backend = self._batch, self._backend
        limits = (backend.max_pages, backend.spare_pages)
        num_decodes = batch.num_decode_rows
        buckets = [self._bucket(r) for r in by_width(self._widths[:num_decodes], *limits)]
        if num_decodes < batch.num_rows:
            lens, widths = batch.query_lens_cpu[num_decodes:], self._widths[num_decodes:]
            longer = by_query_len(lens, widths, *limits)
            buckets += [self._bucket(rows + num_decodes) for rows in longer]
        return buckets

    def _bucket(self, rows: np.ndarray) -> Bucket:
        batch = self._batch
        lens = batch.query_lens_cpu[rows]
        query_len = int(lens.max())
        within = np.minimum(np.arange(query_len), lens[:, None] - 1)
        tokens = valid = None
        if len(rows) < batch.num_rows or query_len > 1:
            tokens = self._put((self._query_starts[rows, None] + within).reshape(-1))
            if lens.min() < query_len:
                is_valid = np.arange(query_len) < lens[:, None]
                valid = self._put(np.flatnonzero(is_valid))
        positions = self._first_positions[rows, None] + within
        is_causal = query_len > 1 and not self._first_positions[rows].any()
        if is_causal and (self._window is None or query_len <= self._window):
            bias = None  # padding stands behind the rows' ends, where causality hides it
        else:
            bias = self._bias(rows, positions)
        pages = self._pages(rows)
        bags = self._bags(pages, len(rows)) if query_len == 1 else None
        return Bucket(len(rows), query_len, tokens, valid, pages, bias, bags)

    def _bags(self, pages: Tensor, num_rows: int) -> ValueBags | None:
        """Elsewhere than on a CPU, and with 16-bit caches, what torch has attends faster."""
        backend = self._backend
        if backend.dtype != torch.float32 or self._device.type != "cpu":
            return None
        heads = backend.num_kv_heads
        group_size = backend.specs[0].num_heads // heads
        return ValueBags.of(pages, num_rows, heads, backend.block_size, group_size)

    def _pages(self, rows: np.ndarray) -> Tensor:
        """Page indices [rows * kv_heads * width]; padding reads the null block."""
        heads = self._backend.num_kv_heads
        columns = self._first_pages[rows, None] + np.arange(self._widths[rows].max())
        is_read = self._put(columns < self._ends[rows, None])
        columns = np.minimum(columns, self._table.shape[1] - 1)
        table = self._table.index_select(0, self._put(rows))
        blocks = table.gather(1, self._put(columns)).long() * is_read
        by_head = blocks[:, None] * heads + torch.arange(heads, device=self._device)[:, None]
        return by_head.view(-1)

    def _bias(self, rows: np.ndarray, positions: np.ndarray) -> Tensor:
        """0 where a query sees a key, else -inf: [rows, 1, query_len, width * block_size]."""
        num_keys = int(self._widths[rows].max()) * self._backend.block_size
        first_keys = self._put(self._first_pages[rows] * self._backend.block_size)
        keys = first_keys[:, None] + torch.arange(num_keys, device=self._device)
        last = self._put(positions)[:, :, None]
        hidden = keys[:, None] > last
        if self._window is not None:
            hidden |= keys[:, None] <= last - self._window
        bias = torch.zeros(hidden.shape, dtype=self._backend.dtype, device=self._device)
        return bias.masked_fill_(hidden, float("-inf"))[:, None]

    def _put(self, array: np.ndarray) -> Tensor:
        if array.dtype != np.bool_:
            array = array.astype(np.int64)
        return torch.from_numpy(array).to(self._device)
