"""What a comparison found, as a table on the terminal and as errors.json.

Knows which numbers are told and what they were fitted on. It compares nothing itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from experiments.errors import LATENCIES, PERCENTILES
from experiments.measured.prices import Prices
from experiments.measured.settings import SYNCHRONOUS_HOST_ROW_S, SYNCHRONOUS_HOST_S
from experiments.measured.system import System
from simulator.cost_models.cached_memory import FASTER, HELD, REACHED
from simulator.cost_models.cached_memory import SOURCE as CACHE_SOURCE
from simulator.cost_models.kernel_constants import KernelConstants, constants_for

GAP_SOURCE = (
    "RTX PRO 6000, Llama-3.1-8B, 300 requests, vLLM 0.19 (0, 1, 2 and 3 ms were tried); tested on"
    " the RTX 4090"
)
HOST_SOURCE = (
    "18 of the 90 bfloat16 points of Qwen3-32B (TP 2 and 8 with 1024 output tokens, TP 4 with 128;"
    " 8, 32 and 128 users; H100, vLLM 0.12); tested on all the others"
)
STATISTICS = (("mean", "mean"), *((f"p{share}", f"p{share}") for share in PERCENTILES))


def fitted_constants(system: System, prices: Prices, launch_gap_s: float) -> dict[str, Any]:
    """Every number that was fitted, with its value and on what; equal for all runs of a GPU."""
    constants = constants_for(system.hardware.name)
    told = {
        "launch_gap_s": {"value": launch_gap_s, "fitted_on": GAP_SOURCE},
    }
    if not system.scheduler.async_scheduling:
        for name, value in (
            ("host_overhead_s", SYNCHRONOUS_HOST_S),
            ("host_overhead_per_request_s", SYNCHRONOUS_HOST_ROW_S),
        ):
            told[name] = {"value": value, "fitted_on": HOST_SOURCE}
    if system.model.num_experts and system.parallel.enable_expert_parallel:
        for name, value in (("held", HELD), ("faster", FASTER), ("reached", REACHED)):
            told[f"cached_memory_{name}"] = {"value": value, "fitted_on": CACHE_SOURCE}
    used = _used_constants(prices)
    for field in fields(KernelConstants):
        if field.name in used:
            told[field.name] = {
                "value": getattr(constants, field.name),
                "fitted_on": constants.source,
            }
    return told


def _used_constants(prices: Prices) -> Sequence[str]:
    """Those that an answer of this kind of cost model rests on."""
    if prices.source == "layer-wise profile":
        # the formula of attention only shapes what the profile's table says
        return ("attention_compute", "attention_tile_rows") if prices.uneven_rows else ()
    return [f.name for f in fields(KernelConstants) if f.name != "source"]


def terminal_table(errors: Mapping[str, float], means: Mapping[str, Sequence[float]]) -> str:
    """The errors in percent, a line a statistic, with measured and simulated means in seconds."""
    lines = [f"  {'':<12}{'TTFT':>10}{'TPOT':>10}{'E2E':>10}"]
    for side, place in (("measured", 0), ("simulated", 1)):
        cells = "".join(f"{_seconds(means[name][place]):>10}" for name in LATENCIES)
        lines.append(f"  {side:<12}{cells}")
    for label, key in STATISTICS:
        cells = "".join(f"{percent(errors[f'{name}_{key}_error']):>10}" for name in LATENCIES)
        lines.append(f"  {label:<12}{cells}")
    cells = "".join(f"{percent(errors[f'{name}_mape'], signed=False):>10}" for name in LATENCIES)
    lines.append(f"  {'MAPE':<12}{cells}")
    lines.append(f"  output tokens/s {percent(errors['output_tokens_per_s_error'])}")
    return "\n".join(lines)


def percent(value: float | None, signed: bool = True) -> str:
    """A fraction as percent with two digits behind the point."""
    if value is None or math.isnan(value):
        return "-"
    return f"{100 * value:+.2f} %" if signed else f"{100 * value:.2f} %"


def _seconds(value: float) -> str:
    return f"{1e3 * value:.1f} ms" if value < 1 else f"{value:.3f} s"
