"""Attention of one layer on one GPU, from arithmetic, memory traffic and the critical path.

Knows chunks and contexts. It does not know projections or how many layers there are.

A prompt chunk of q tokens after c cached ones takes the longest of

* arithmetic: 4 x heads x head size x (q c + q^2/2 + q x overhead) flops,
* memory: reading the keys and values of c + q tokens,
* critical path: one multiprocessor walks one tile of query rows over c + q tokens.

Decode rows read the keys and values of their contexts; rows cost a few extra tokens each.
"""

from collections.abc import Sequence

from simulator.cost_models.kernel_constants import KernelConstants
from simulator.hardware import HardwareConfig
from simulator.model_config import DTYPE_BYTES, ModelConfig
from simulator.parallel import ParallelConfig


class AttentionRoofline:
    """Analytic attention time; monotone in every count."""

    def __init__(
        self,
        model: ModelConfig,
        hardware: HardwareConfig,
        parallel: ParallelConfig,
        constants: KernelConstants,
    ) -> None:
        heads = model.num_attention_heads // parallel.tensor_parallel_size
        kv_heads = model.kv_heads_per_rank(parallel)
        peak = hardware.peak_flops(model.dtype if model.dtype != "fp8" else "bfloat16")
        rate = peak * constants.attention_compute
        kv_bytes = 2 * kv_heads * model.head_dim * DTYPE_BYTES[model.kv_cache_dtype]
        flops = 4 * heads * model.head_dim
        self.latency = constants.attention_latency_us * 1e-6
        self._compute = flops / rate
        self._memory = kv_bytes / (hardware.memory_bandwidth * constants.attention_memory)
        tile = 4 * constants.attention_tile_rows * model.head_dim
        self._path = tile / (rate / hardware.num_sms)
        # decode packs the query heads of a group into one tile of at least 16 rows
        packed = 4 * max(heads, 16 * kv_heads) * model.head_dim
        self._decode = max(self._memory, packed / rate)
        self._overhead = constants.attention_overhead_tokens
        self._row = constants.decode_overhead_tokens
        self._window = model.sliding_window

    def prefill(self, prefills: Sequence[tuple[int, int]]) -> float:
        """Seconds of prompt chunks (query_len, context_len), without the fixed time."""
        total = longest = 0.0
        overhead, compute, memory, window = (
            self._overhead,
            self._compute,
            self._memory,
            self._window,
        )
        for query, context in prefills:
            keys = context + query
            if window is None or keys <= window:
                pairs = query * (context + 0.5 * query)
            else:
                growing = max(0, min(query, window - context))
                pairs = growing * (context + 0.5 * growing) + (query - growing) * float(window)
                keys = min(keys, window + query)
            arithmetic = (pairs + query * overhead) * compute
            traffic = keys * memory
            total += arithmetic if arithmetic > traffic else traffic
            if keys > longest:
                longest = keys
        path = longest * self._path
        return total if total > path else path

    def decode(self, num_decodes: int, decode_context: int) -> float:
        """Seconds of decode rows with `decode_context` keys in all, without the fixed time."""
        if self._window is not None:
            decode_context = min(decode_context, num_decodes * self._window)
        return (decode_context + num_decodes * self._row) * self._decode

    def time(
        self, num_decodes: int, decode_context: int, prefills: Sequence[tuple[int, int]]
    ) -> float:
        """Seconds of one layer's attention; 0 without rows."""
        if not num_decodes and not prefills:
            return 0.0
        seconds = self.latency
        if num_decodes:
            seconds += self.decode(num_decodes, decode_context)
        if prefills:
            seconds += self.prefill(prefills)
        return seconds
