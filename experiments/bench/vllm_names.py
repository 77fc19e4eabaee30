"""A result under the names of vLLM's serving benchmark, so that scripts for its files work.

Knows those names and their definitions: times in milliseconds, counted from sending, statistics
over the requests that succeeded.
"""

import math
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.bench.results import BenchResult
from workbench.metrics import SLO, RequestColumns

Floats = NDArray[np.float64]
METRICS = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2EL"}
QUEUE = "client_queue_time"
WITH_QUEUE = "e2el_including_client_queue"
LATENCY_OF = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}


def latencies(result: BenchResult) -> dict[str, Floats]:
    """The values of each metric over requests (ITL: over gaps), in milliseconds."""
    good = _succeeded(result)
    columns = result.from_sending
    values = {name: getattr(columns, key) for name, key in LATENCY_OF.items() if name != "itl"}
    found = {name: value[good & ~np.isnan(value)] * 1e3 for name, value in values.items()}
    found["itl"] = np.concatenate([np.empty(0), *_gaps(columns, good)]) * 1e3
    found[QUEUE] = result.send_delay_s[good] * 1e3
    found[WITH_QUEUE] = result.columns.e2e_s[good] * 1e3
    return found


def _succeeded(result: BenchResult) -> NDArray[np.bool_]:
    return np.array([failure is None for failure in result.failures], dtype=np.bool_)


def _gaps(columns: RequestColumns, chosen: NDArray[np.bool_]) -> list[Floats]:
    bounds = columns.itl_offsets
    return [columns.itl_s[bounds[i] : bounds[i + 1]] for i in np.flatnonzero(chosen).tolist()]


def statistics(values: Floats, percentiles: Sequence[float]) -> dict[str, float]:
    """mean, median, std and pN; 0 where there are no values, as vLLM has it."""
    if not len(values):
        values = np.zeros(1)
    told = {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "std": float(values.std()),
    }
    return told | {f"p{p:g}": float(np.percentile(values, p)) for p in percentiles}


def vllm_result(
    result: BenchResult,
    slo: SLO,
    head: dict[str, Any],
    metrics: Sequence[str],
    percentiles: Sequence[float],
    *,
    is_detailed: bool = False,
) -> dict[str, Any]:
    """The content of vLLM's result file.

    Args:
        result: What was measured.
        slo: For the goodput.
        head: What was asked for: model_id, num_prompts, request_rate, …
        metrics: Those of `METRICS` to give statistics of.
        percentiles: Of them.
        is_detailed: With what every request took.
    """
    told = {"date": time.strftime("%Y%m%d-%H%M%S"), **head, **_counts(result, slo)}
    values = latencies(result)
    shown = [*metrics, *([QUEUE, WITH_QUEUE] if result.has_send_delay else [])]
    for name in shown:
        for statistic, value in statistics(values[name], percentiles).items():
            told[f"{statistic}_{name}_ms"] = value
    return told | (_details(result) if is_detailed else {})


def _counts(result: BenchResult, slo: SLO) -> dict[str, Any]:
    """Requests, tokens and their rates."""
    good = _succeeded(result)
    columns = result.columns
    inputs = int(columns.prompt_tokens[good].sum())
    outputs = int(columns.output_tokens[good].sum())
    seconds = max(result.duration_s, 1e-9)
    met = int(slo.met(result.from_sending).sum())
    return {
        "duration": result.duration_s,
        "completed": int(good.sum()),
        "failed": result.num_failed,
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": int(good.sum()) / seconds,
        "request_goodput": None if slo.is_empty else met / seconds,
        "output_throughput": outputs / seconds,
        "total_token_throughput": (inputs + outputs) / seconds,
        "max_output_tokens_per_s": result.peak_output_tokens_per_s(),
        "max_concurrent_requests": result.peak_concurrency,
    }


def _details(result: BenchResult) -> dict[str, Any]:
    columns = result.from_sending
    bounds = columns.itl_offsets.tolist()
    gaps = columns.itl_s
    return {
        "input_lens": columns.prompt_tokens.tolist(),
        "output_lens": columns.output_tokens.tolist(),
        "ttfts": _zeroed(columns.ttft_s),
        "itls": [gaps[a:b].tolist() for a, b in pairwise(bounds)],
        "latencies": _zeroed(columns.e2e_s),
        "start_times": result.sent_s.tolist(),
        "queue_times": result.send_delay_s.tolist(),
        "errors": [record.finish_detail or "" for record in result.records],
    }


def _zeroed(values: Floats) -> list[float]:
    """0 where there is none, as vLLM has it."""
    return [0.0 if math.isnan(value) else value for value in values.tolist()]
