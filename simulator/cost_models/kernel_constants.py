"""Which share of a GPU's peaks its kernels reach, and what a launch costs.

Every row says what it was fitted on. The fits minimise the mean relative error of the formulas of
`roofline.py` and `attention.py` over published kernel tables (bfloat16, head size 128):

* gemm, attention: tables of aiconfigurator-core 0.12.0 (Apache-2.0), vLLM's kernels replayed in
  CUDA graphs; m up to 8192, n and k from 1024; prompts of 64 to 16k tokens.
* layer-wise profiles of LLMServingSim 2 (MIT), vLLM 0.19, where named.

Mixed batches were not fitted: the layout of FlashAttention 2 explains them with the constants of
prompts (see `attention.py`). The start of an empty tile is read off one row of the profiles of the
RTX 4090 and of the RTX PRO 6000 (the same on both: 128 decode rows of 64 tokens beside a chunk of
2,048 against one of 16).

A small table's decode attention can run from the second-level cache; shares above what the device
memory itself delivers are therefore capped at 0.92.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any

from simulator.bounds import check_number
from workbench.errors import ConfigError

_SHARES = (
    "gemm_compute",
    "gemm_memory",
    "moe_compute",
    "attention_compute",
    "attention_memory",
    "elementwise_memory",
    "network",
    "host_link",
)


@dataclass(frozen=True, slots=True)
class KernelConstants:
    """Attributes: shares of a peak are in (0, 1.2]; times in microseconds.

    gemm_compute, gemm_memory: Of matrix rate and memory bandwidth, in matrix products.
    moe_compute: Of the matrix rate, in the grouped products of experts.
    roofline_exponent: How arithmetic and memory time of a product combine: (c^p + m^p)^(1/p);
        infinity is the textbook maximum, 2 fits the measured kernels best.
    gemm_latency_us: Fixed time of a product.
    attention_compute: Of the matrix rate, in prompt attention.
    attention_overhead_tokens: Extra key tokens that a query token costs (tiles half used).
    attention_memory: Of the memory bandwidth, in decode attention.
    decode_overhead_tokens: Extra key tokens that a decode row costs.
    attention_latency_us: Fixed time of attention in a layer, with the write to the KV cache.
    attention_tile_rows: Query rows that one multiprocessor works on; with few queries the time is
        that of one multiprocessor walking over the whole context.
    packs_query_heads: Whether a decode row beside a prompt chunk shares a tile between the query
        heads that share keys (FlashAttention 3, or decode in a kernel of its own), or each head
        has its own (FlashAttention 2).
    empty_tile_us: To start a tile that has no query row.
    elementwise_memory: Of the memory bandwidth, in norms, activations and rotary embedding.
    elementwise_latency_us: Fixed time of one such kernel.
    network: Of the link bandwidth, in collectives.
    network_latency_us: Fixed time of a collective.
    host_link: Of the PCIe bandwidth, in swaps.
    source: What the numbers were fitted on.
    """

    gemm_compute: float = 0.75
    gemm_memory: float = 0.8
    moe_compute: float = 0.65
    roofline_exponent: float = 2.0
    gemm_latency_us: float = 4.0
    attention_compute: float = 0.55
    attention_overhead_tokens: float = 250.0
    attention_memory: float = 0.8
    decode_overhead_tokens: float = 50.0
    attention_latency_us: float = 12.0
    attention_tile_rows: float = 64.0
    packs_query_heads: bool = False
    empty_tile_us: float = 0.35
    elementwise_memory: float = 0.8
    elementwise_latency_us: float = 2.0
    network: float = 0.65
    network_latency_us: float = 4.0
    host_link: float = 0.8
    source: str = "assumed: the middle of the GPUs that were measured"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            name = f"cost_model.constants.{field.name}"
            if field.name == "source":
                continue
            if field.name == "packs_query_heads":
                if not isinstance(value, bool):
                    raise ConfigError(f"{name}={value!r} must be true or false")
            # an infinite exponent is the textbook maximum
            elif field.name != "roofline_exponent" or value != inf:
                check_number(name, value, below=1e6)
        for name in _SHARES:
            if not 0 < getattr(self, name) <= 1.2:
                raise ConfigError(
                    f"cost_model.constants.{name}={getattr(self, name)} must lie in (0, 1.2]"
                )
        for name in ("attention_tile_rows", "roofline_exponent"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"cost_model.constants.{name}={getattr(self, name)} must be at least 1"
                )

    def scaled(self, factor: float) -> "KernelConstants":
        """The same shares with every fixed time `factor` times as short."""
        times = {f.name: getattr(self, f.name) / factor for f in fields(self) if "_us" in f.name}
        return replace(self, **times)


_TABLES = "kernel tables of aiconfigurator-core 0.12.0 (Apache-2.0)"
_LAYERS = "layer-wise profiles of LLMServingSim (MIT)"
_A100 = KernelConstants(
    gemm_compute=0.82,
    gemm_memory=0.72,
    gemm_latency_us=5.0,
    attention_compute=0.58,
    attention_overhead_tokens=200,
    attention_memory=0.78,
    decode_overhead_tokens=30,
    attention_latency_us=16.0,
    network=0.62,
    network_latency_us=4.5,
    source=f"{_TABLES}, A100 SXM, vLLM 0.14: mean error gemm 8 %, prompt 10 %, decode 13 %",
)
_HOPPER = KernelConstants(
    gemm_compute=0.84,
    gemm_memory=0.88,
    gemm_latency_us=3.0,
    attention_compute=0.68,
    attention_overhead_tokens=500,
    attention_memory=0.92,
    decode_overhead_tokens=90,
    packs_query_heads=True,
    source=f"{_TABLES}, H100 and H200 SXM, vLLM 0.24: mean error gemm 7 %, prompt 9 %, decode 10 %",
)
MEASURED: dict[str, KernelConstants] = {
    "a100": _A100,
    "a100_40gb": replace(_A100, source=_A100.source + " (80 GB model)"),
    "h100": _HOPPER,
    "h200": replace(_HOPPER, gemm_latency_us=4.0, attention_memory=0.9, decode_overhead_tokens=150),
    "b200": KernelConstants(
        gemm_compute=0.74,
        gemm_memory=0.78,
        gemm_latency_us=3.0,
        attention_compute=0.56,
        attention_overhead_tokens=500,
        attention_memory=0.92,
        decode_overhead_tokens=70,
        attention_latency_us=10.0,
        packs_query_heads=True,
        source=f"{_TABLES}, B200, vLLM 0.24: mean error gemm 9 %, prompt 13 %, decode 10 %",
    ),
    "l40s": KernelConstants(
        gemm_compute=0.66,
        gemm_memory=0.82,
        gemm_latency_us=1.0,
        attention_compute=0.52,
        attention_overhead_tokens=200,
        attention_memory=0.9,
        decode_overhead_tokens=30,
        attention_latency_us=8.0,
        network=0.5,
        network_latency_us=1.5,
        source=f"{_TABLES}, L40S, vLLM 0.24: mean error gemm 13 %, prompt 10 %; decode as RTX PRO",
    ),
    "rtx4090": KernelConstants(
        gemm_compute=1.0,
        gemm_memory=0.92,
        attention_compute=0.82,
        attention_overhead_tokens=300,
        attention_memory=0.92,
        decode_overhead_tokens=50,
        attention_latency_us=10.0,
        elementwise_memory=1.0,
        network=0.5,
        network_latency_us=1.5,
        source=f"{_LAYERS}, vLLM 0.19, Llama-3.1-8B: mean error gemm 4 %, prompt 5 %, decode 9 %"
        " (the card clocks above its nominal boost)",
    ),
    "rtx_pro_6000": KernelConstants(
        gemm_compute=0.77,
        gemm_memory=0.92,
        gemm_latency_us=3.0,
        attention_compute=0.58,
        attention_overhead_tokens=300,
        attention_memory=0.9,
        decode_overhead_tokens=30,
        attention_latency_us=10.0,
        elementwise_memory=1.0,
        network=0.5,
        network_latency_us=1.5,
        source=f"{_TABLES} and {_LAYERS}: mean error gemm 7-9 %, prompt 8 %, decode 6 %",
    ),
}


def constants_for(
    hardware_name: str, overrides: "Mapping[str, Any] | KernelConstants | None" = None
) -> KernelConstants:
    """Constants of a GPU, with single values replaced.

    Raises:
        ConfigError: An unknown name among the overrides, or a value out of range.
    """
    if isinstance(overrides, KernelConstants):
        return overrides
    constants = MEASURED.get(hardware_name, KernelConstants())
    if not overrides:
        return constants
    known = [field.name for field in fields(KernelConstants)]
    for name in overrides:
        if name not in known:
            raise ConfigError(
                f"cost_model.constants.{name} is unknown: choose one of {', '.join(known)}"
            )
    return replace(constants, **{str(name): value for name, value in overrides.items()})
