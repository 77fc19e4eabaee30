"""The main numbers of a run for the terminal: a few lines, in units that read well.

Knows the names of a summary and their units. How they came about is known by `workbench.metrics`,
and by `uncertainty` where there are intervals.
"""

from collections.abc import Mapping
from typing import Any

ROWS = (
    ("requests finished", "finished", ""),
    ("duration", "duration_s", "s"),
    ("output tokens", "output_tokens_per_s", "/s"),
    ("goodput", "goodput_requests_per_s", "requests/s"),
    ("time to first token, p50", "ttft_s_p50", "latency"),
    ("time to first token, p99", "ttft_s_p99", "latency"),
    ("time per output token, p50", "tpot_s_p50", "latency"),
    ("between tokens, p99", "itl_s_p99", "latency"),
    ("prefix cache hits", "prefix_hit_rate", "%"),
    ("preemptions", "preemptions", ""),
    ("extrapolated steps", "extrapolated_steps", ""),
    ("computed in", "simulation_cpu_s", "CPU s"),
)  # label, key of the summary, unit
WIDTHS = (28, 12, 10)  # of label, number and unit


def brief(summary: Mapping[str, Any]) -> str:
    """The main numbers of a summary as aligned lines, with their intervals where it has some."""
    lines = []
    for label, key, kind in ROWS:
        value = summary.get(key)
        if value is None:
            continue
        factor, unit = _unit(float(value), kind)
        line = f"  {label:<{WIDTHS[0]}}{_number(value, factor):>{WIDTHS[1]}} {unit:<{WIDTHS[2]}}"
        low, high = summary.get(f"{key}_low"), summary.get(f"{key}_high")
        if low is not None and high is not None:
            line += f" [{_number(low, factor)}, {_number(high, factor)}]"
        lines.append(line.rstrip())
    if "uncertainty_level" in summary:
        level, runs = summary["uncertainty_level"], summary["uncertainty_runs"]
        told = f"{100 * level:.3g} % intervals, from {runs} simulations with errors drawn"
        lines.append(f"  [low, high]: {told}")
    return "\n".join(lines)


def _unit(value: float, kind: str) -> tuple[float, str]:
    """(factor, unit) of a number; a latency from one second on is in seconds."""
    if kind == "latency":
        return (1.0, "s") if abs(value) >= 1.0 else (1e3, "ms")
    return (100.0, "%") if kind == "%" else (1.0, kind)


def _number(value: float, factor: float) -> str:
    """Four digits that count and never an exponent for what is large: 0.1234, 222.8, 12,346."""
    if isinstance(value, int):
        return f"{value * factor:,.0f}"
    scaled = value * factor
    return f"{scaled:,.0f}" if abs(scaled) >= 999.95 else f"{scaled:.4g}"
