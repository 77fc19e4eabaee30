"""Attention of one layer on one GPU, from arithmetic, memory traffic and the critical path.

Knows chunks, contexts and how FlashAttention lays a batch out. It does not know projections or how
many layers there are.

A prompt chunk of q tokens after c cached ones takes the longest of

* arithmetic: 4 x heads x head size x (rows c + q^2/2 + q x overhead) flops, with q rounded up to
  the rows of whole tiles,
* memory: reading the keys and values of c + q tokens,
* critical path: one multiprocessor walks one tile of query rows over c + q tokens.

Decode rows alone read the keys and values of their contexts; rows cost a few extra tokens each. The
query heads that share keys share a tile.

Beside a prompt chunk FlashAttention 2 gives every query head of a decode row a tile of its own, of
which one row is used (https://arxiv.org/abs/2307.08691; paged kernels have tiles of 64 rows). So

* arithmetic is that of whole tiles: heads x tile rows x context,
* the heads of a group read the same keys one after the other, from memory again if the second-level
  cache has lost them meanwhile,
* tiles of unequal length leave multiprocessors idle at the end: half the longest walk on average,
* the grid is sized by the longest chunk, and tiles that find nothing to do still start.

FlashAttention 3 packs the heads of a group into one tile in any batch (`packs_query_heads`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from simulator.cost_models.kernel_constants import KernelConstants
from simulator.hardware import HardwareConfig
from simulator.hf_config import DTYPE_BYTES
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig

Chunks = Sequence[tuple[int, int]]


class Attention(ABC):
    """Prices one layer's attention.

    Attributes:
        is_bounded: Whether `is_extrapolated` can ever be True.
    """

    is_bounded: bool = False

    @abstractmethod
    def time(self, num_decodes: int, decode_context: int, prefills: Chunks) -> float:
        """Seconds of one layer's attention; 0 without rows.

        Args:
            num_decodes: Rows of one token.
            decode_context: Keys that they read, in all.
            prefills: (query_len, context_len) of every other row.

        Raises:
            CostModelError: Far outside of what was measured.
        """

    def is_extrapolated(self, num_decodes: int, decode_context: int, prefills: Chunks) -> bool:
        """Whether the answer for these rows rests on values outside of what was measured."""
        return False


@dataclass(frozen=True, slots=True)
class AttentionHeads:
    """The heads of one layer on one GPU, and the bytes of an element of the KV cache."""

    heads: int
    kv_heads: int
    head_dim: int
    dtype: str = "bfloat16"
    kv_dtype: str = "bfloat16"

    @classmethod
    def of(cls, model: ModelConfig, parallel: ParallelConfig) -> "AttentionHeads":
        """Those of a model that is divided so."""
        return cls(
            model.num_attention_heads // parallel.tensor_parallel_size,
            model.kv_heads_per_rank(parallel),
            model.head_dim,
            # fp8 weights are multiplied in fp8, attention is not
            model.dtype if model.dtype != "fp8" else "bfloat16",
            model.kv_cache_dtype,
        )


class AttentionRoofline(Attention):
    """Analytic attention time; monotone in every count, decode rows counted at their mean context.

    The longest decode row is not known. Beside a prompt chunk the mean row stands for it, so one
    short row more beside a very long one shortens the walk that is assumed.

    Args:
        heads: Of one layer on one GPU.
        hardware, constants: Peaks, and the shares of them that are reached.
        window: Tokens that a query sees; None: all before it.
    """

    def __init__(
        self,
        heads: AttentionHeads,
        hardware: HardwareConfig,
        constants: KernelConstants,
        window: int | None = None,
    ) -> None:
        self.window = window
        self.latency = constants.attention_latency_us * 1e-6
        rate = hardware.peak_flops(heads.dtype) * constants.attention_compute
        head_bytes = 2 * heads.head_dim * DTYPE_BYTES[heads.kv_dtype]
        bandwidth = hardware.memory_bandwidth * constants.attention_memory
        self._compute = 4 * heads.heads * heads.head_dim / rate
        self._memory = heads.kv_heads * head_bytes / bandwidth
        self._group = heads.heads / heads.kv_heads
        self._packs = constants.packs_query_heads
        rows = constants.attention_tile_rows
        self._path = 4 * rows * heads.head_dim / (rate / hardware.num_sms)
        self._tile = max(1.0, rows / self._group) if self._packs else rows
        # decode packs the query heads of a group into one tile of at least 16 rows
        packed = 4 * max(heads.heads, 16 * heads.kv_heads) * heads.head_dim
        self._decode = max(self._memory, packed / rate)
        self._overhead = constants.attention_overhead_tokens
        self._row = constants.decode_overhead_tokens
        # a tile of its own has its start and its end, but no diagonal that is half used
        self._tile_overhead = 0.5 * self._overhead
        self._num_sms = hardware.num_sms
        self._cache_share = head_bytes / hardware.l2_cache_bytes
        start = 0.0 if self._packs else constants.empty_tile_us * 1e-6
        self._start = start * heads.heads / hardware.num_sms / self._tile  # of one query row

    def time(self, num_decodes: int, decode_context: int, prefills: Chunks) -> float:
        if not prefills:
            if not num_decodes:
                return 0.0
            # `decode` written out: most steps of most runs come this way
            if self.window is not None:
                decode_context = min(decode_context, num_decodes * self.window)
            return self.latency + (decode_context + num_decodes * self._row) * self._decode
        if not num_decodes:
            return self.latency + self.prefill(prefills)
        if self._packs:
            decode = self.decode(num_decodes, decode_context)
            return self.latency + self.prefill(prefills) + decode
        return self.latency + self._mixed(num_decodes, decode_context, prefills)

    def decode(self, num_decodes: int, decode_context: int) -> float:
        """Seconds of decode rows with `decode_context` keys in all, without the fixed time."""
        if self.window is not None:
            decode_context = min(decode_context, num_decodes * self.window)
        return (decode_context + num_decodes * self._row) * self._decode

    def prefill(self, prefills: Chunks) -> float:
        """Seconds of prompt chunks (query_len, context_len), without the fixed time."""
        total, longest, empty = self._chunks(prefills, 0)
        path = longest * self._path
        return (total if total > path else path) + empty

    def _chunks(self, prefills: Chunks, num_decodes: int) -> tuple[float, float, float]:
        """(seconds if all multiprocessors were busy, keys of the longest walk, seconds of starting
        tiles without a query row) of chunks beside so many decode rows."""
        total = longest = used = most = 0.0
        overhead, compute, memory = self._overhead, self._compute, self._memory
        window, tile = self.window, self._tile
        for query, context in prefills:
            keys: float = context + query
            rows = -(-query // tile) * tile
            if window is None or keys <= window:
                pairs = rows * context + 0.5 * query * query
            else:
                seen = min(context, window)
                growing = min(query, window - seen)
                pairs = rows * seen + 0.5 * growing * growing + (query - growing) * (window - seen)
                keys = min(keys, window + query)
            arithmetic = (pairs + query * overhead) * compute
            traffic = keys * memory
            total += arithmetic if arithmetic > traffic else traffic
            if keys > longest:
                longest = keys
            used += rows
            if rows > most:
                most = rows
        # the grid has as many tiles for every row of the batch as the longest chunk needs
        launched = (num_decodes + len(prefills)) * most - num_decodes * tile
        return total, longest, (launched - used) * self._start

    def _mixed(self, num_decodes: int, decode_context: int, prefills: Chunks) -> float:
        total, longest, empty = self._chunks(prefills, num_decodes)
        if self.window is not None:
            decode_context = min(decode_context, num_decodes * self.window)
        keys = decode_context + num_decodes * self._tile_overhead
        arithmetic = self._tile * keys * self._compute
        traffic = decode_context * self._memory * self._reads(num_decodes, decode_context)
        total += arithmetic if arithmetic > traffic else traffic
        walk = max(longest, decode_context / num_decodes) * self._path
        return max(total + 0.5 * walk, walk) + empty

    def _reads(self, num_decodes: int, decode_context: int) -> float:
        """How often a key is read from memory, 1 to the number of query heads that share it.

        Tiles run head by head. With few rows all heads of a group run at once and read together.
        """
        at_once = min(self._group, max(1.0, self._num_sms / num_decodes))
        size = decode_context * self._cache_share
        if size <= 1.0:
            return 1.0
        missed = 1.0
        for _ in range(6):
            # a line survives until its next use if none of the lines missed since replaced it
            missed = 1.0 - exp(-missed * size)
        return 1.0 + (self._group / at_once - 1.0) * missed


class HybridAttention(Attention):
    """The mean layer of a model in which half of the layers see a window only.

    Args:
        full, windowed: Attention of the two kinds of layers.
    """

    def __init__(self, full: Attention, windowed: Attention) -> None:
        self._kinds = full, windowed
        self.is_bounded = full.is_bounded or windowed.is_bounded

    def time(self, num_decodes: int, decode_context: int, prefills: Chunks) -> float:
        full, windowed = self._kinds
        seconds = full.time(num_decodes, decode_context, prefills)
        return 0.5 * (seconds + windowed.time(num_decodes, decode_context, prefills))

    def is_extrapolated(self, num_decodes: int, decode_context: int, prefills: Chunks) -> bool:
        return any(a.is_extrapolated(num_decodes, decode_context, prefills) for a in self._kinds)
