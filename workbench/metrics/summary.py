"""One run in one flat dict: counts, rates, and the distribution of every latency.

Knows statistics. The latencies are defined in ``columns``, the objectives in ``slo``; files and
charts are not known here.

Rules for what is counted:

- ``requests`` = stopped + length + aborted + ignored + error + unfinished, and
  ``finished`` = stopped + length. Rates of requests count finished ones. ``truncated`` of those
  with ``length`` had their answer cut by the model's length: they meet no objective.
- ``output_tokens`` counts every token that left, also those of requests aborted later.
  ``prompt_tokens`` counts the prompts of requests that gave at least one token, cached part
  included; a refused or still waiting prompt is not throughput.
- A latency statistic covers the requests that have this latency (table in ``columns``).
  With none, its keys are there and None. No value is ever NaN or infinite.
- Percentiles are exact: all values, linear interpolation between the two neighbours (numpy's
  default and that of vLLM's benchmark). ``_std`` is the population's.
- ``goodput_requests_per_s`` = requests that meet all objectives / duration and
  ``slo_attainment`` = those / all requests (DistServe, OSDI 2024). None if no limit is set.
- ``prefix_hit_rate`` = hit tokens / queried tokens from the cache's own counters when given,
  else cached / prompt tokens of the requests that were scheduled.
- ``busy_fraction`` = time in steps / (duration x replicas), idle replicas included.
- Means over steps (``kv_usage_mean``, ``batch_size_mean``) are weighted by the steps' durations,
  ``batch_tokens_mean`` is per step. ``kv_usage`` is in 0..1.
- ``fairness_*`` are Jain indices over the clients, 1 = all equal, 1/n = one has it all; None with
  fewer than two clients. ``fairness_service`` is over the service received, prompt + 2 x output
  tokens (weights of Sheng et al., OSDI 2024), ``fairness_latency`` over mean normalized latency.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from workbench.metrics.columns import Floats, Ints, RequestColumns
from workbench.metrics.records import UNFINISHED, RequestRecord
from workbench.metrics.slo import SLO
from workbench.metrics.step_log import StepLog

Summary = dict[str, float | int | None]

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s", "normalized_latency_s")
PERCENTILES = (50, 90, 95, 99)
_REASON_KEYS = {
    "stopped": "stop",
    "length": "length",
    "aborted": "abort",
    "ignored": "ignored",
    "error": "error",
    "unfinished": UNFINISHED,
}


def summarize(
    records: Sequence[RequestRecord] | RequestColumns,
    steps: StepLog,
    slo: SLO | None = None,
    *,
    duration_s: float | None = None,
    replicas: int | None = None,
    num_kv_blocks: int | Sequence[int] | None = None,
    counters: Mapping[str, float] | None = None,
) -> Summary:
    """Summary of a run with plain int, float and None values, ready for JSON.

    ``duration_s``: length of the run; default: first arrival to last event.
    ``replicas``: how many there were, idle ones included; default: up to the highest number seen.
    ``num_kv_blocks``: capacity, one number or one a replica; without it ``kv_usage_*`` is None.
    ``counters``: only ``prefix_queries_tokens`` and ``prefix_hit_tokens`` are read.
    """
    if isinstance(records, RequestColumns):
        requests = records
    else:
        requests = RequestColumns.from_records(records)
    columns = dict(steps.columns())
    if duration_s is None:
        duration_s = _observed_duration(requests, columns)
    summary = _counts(requests)
    summary["duration_s"] = float(duration_s)
    summary |= _rates(summary, duration_s)
    for name in LATENCIES:
        summary |= distribution(name, getattr(requests, name))
    summary["preemptions"] = int(requests.preemptions.sum())
    summary["prefix_hit_rate"] = _prefix_hit_rate(requests, counters or {})
    summary |= _goodput(requests, slo, duration_s)
    summary |= _fairness(requests)
    if replicas is None:
        replicas = _highest(requests.replica, columns["replica"]) + 1
    summary["busy_fraction"] = _ratio(columns["duration_s"].sum(), duration_s * replicas)
    summary |= _step_statistics(columns, num_kv_blocks)
    return summary


def distribution(name: str, values: Floats | Ints) -> Summary:
    """``{name}_mean, _std, _p50 .. _p99, _max`` of the values that are not NaN; None if none."""
    keys = ["mean", "std", *(f"p{p}" for p in PERCENTILES), "max"]
    if name != "itl_s":  # gaps are never missing, and there may be tens of millions of them
        values = values[~np.isnan(values)]
    if len(values) == 0:
        return {f"{name}_{key}": None for key in keys}
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    numbers = [ordered.mean(), ordered.std(), *_percentiles(ordered), ordered[-1]]
    return {f"{name}_{key}": float(x) for key, x in zip(keys, numbers, strict=True)}


def _percentiles(ordered: Floats) -> list[float]:
    """Linear interpolation at rank p / 100 * (n - 1); equals ``np.percentile`` to rounding."""
    out = []
    for p in PERCENTILES:
        rank = p / 100 * (len(ordered) - 1)
        low = int(rank)
        high = min(low + 1, len(ordered) - 1)
        out.append(float(ordered[low] + (ordered[high] - ordered[low]) * (rank - low)))
    return out


def jain_index(values: Floats) -> float | None:
    """Jain's fairness index (sum x)^2 / (n sum x^2), in [1/n, 1]; None if all are zero."""
    squares = float(np.dot(values, values))
    if len(values) == 0 or squares == 0.0:
        return None
    return float(values.sum()) ** 2 / (len(values) * squares)


def _counts(requests: RequestColumns) -> Summary:
    reasons = Counter(requests.finish_reason)
    out: Summary = {"requests": len(requests), "finished": reasons["stop"] + reasons["length"]}
    for key, reason in _REASON_KEYS.items():
        out[key] = reasons[reason]
    out["truncated"] = int(requests.truncated.sum())
    out["output_tokens"] = int(requests.output_tokens.sum())
    out["prompt_tokens"] = int(requests.prompt_tokens[requests.output_tokens > 0].sum())
    return out


def _rates(counts: Summary, duration_s: float) -> Summary:
    prompt, output = counts["prompt_tokens"] or 0, counts["output_tokens"] or 0
    return {
        "requests_per_s": _ratio(counts["finished"] or 0, duration_s),
        "output_tokens_per_s": _ratio(output, duration_s),
        "prompt_tokens_per_s": _ratio(prompt, duration_s),
        "total_tokens_per_s": _ratio(prompt + output, duration_s),
    }


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole > 0 else None


def _observed_duration(requests: RequestColumns, steps: Mapping[str, Floats | Ints]) -> float:
    """First arrival (or step) to the last finish, token or step end; 0 for an empty run."""
    ends = [requests.finish_s, requests.last_token_s, steps["start_s"] + steps["duration_s"]]
    starts = np.concatenate([requests.arrival_s, steps["start_s"]])
    end = np.concatenate([e[~np.isnan(e)] for e in ends])
    return float(end.max() - starts.min()) if len(end) and len(starts) else 0.0


def _prefix_hit_rate(requests: RequestColumns, counters: Mapping[str, float]) -> float | None:
    if "prefix_queries_tokens" in counters:
        return _ratio(counters.get("prefix_hit_tokens", 0.0), counters["prefix_queries_tokens"])
    scheduled = ~np.isnan(requests.first_scheduled_s)
    cached = requests.cached_tokens[scheduled].sum()
    return _ratio(cached, requests.prompt_tokens[scheduled].sum())


def _goodput(requests: RequestColumns, slo: SLO | None, duration_s: float) -> Summary:
    if slo is None or slo.is_empty:
        return {"goodput_requests_per_s": None, "slo_attainment": None}
    good = int(slo.met(requests).sum())
    return {
        "goodput_requests_per_s": _ratio(good, duration_s),
        "slo_attainment": _ratio(good, len(requests)),
    }


def _fairness(requests: RequestColumns) -> Summary:
    clients = {name: i for i, name in enumerate(sorted(set(requests.client_id)))}
    out: Summary = {
        "clients": len(clients),
        "fairness_service": None,
        "fairness_latency": None,
    }
    if len(clients) < 2:
        return out
    index = np.array([clients[name] for name in requests.client_id])
    received = np.where(requests.output_tokens > 0, requests.prompt_tokens, 0)
    tokens = received + 2.0 * requests.output_tokens
    service = np.bincount(index, weights=tokens).astype(np.float64)
    out["fairness_service"] = jain_index(service)
    has = ~np.isnan(requests.normalized_latency_s)
    sums = np.bincount(index[has], weights=requests.normalized_latency_s[has])
    counts = np.bincount(index[has])
    out["fairness_latency"] = jain_index(sums[counts > 0] / counts[counts > 0])
    return out


def _step_statistics(
    steps: Mapping[str, Floats | Ints],
    num_kv_blocks: int | Sequence[int] | None,
) -> Summary:
    weights = steps["duration_s"]
    out: Summary = {
        "steps": len(weights),
        "batch_size_mean": _weighted_mean(steps["running"], weights),
        "batch_size_max": int(steps["running"].max()) if len(weights) else None,
        "batch_tokens_mean": _ratio(steps["scheduled_tokens"].sum(), len(weights)),
        "waiting_max": int(steps["waiting"].max()) if len(weights) else None,
        "kv_usage_mean": None,
        "kv_usage_max": None,
    }
    if num_kv_blocks is not None and len(weights):
        capacity = np.asarray(num_kv_blocks, dtype=np.float64)
        usage = steps["kv_blocks_used"] / (
            capacity[steps["replica"]] if capacity.ndim else capacity
        )
        out["kv_usage_mean"] = _weighted_mean(usage, weights)
        out["kv_usage_max"] = float(usage.max())
    return out | distribution("step_s", weights)


def _highest(*columns: Ints) -> int:
    return max((int(column.max()) for column in columns if len(column)), default=-1)


def _weighted_mean(values: Floats | Ints, weights: Floats | Ints) -> float | None:
    if len(values) == 0:
        return None
    total = float(weights.sum())
    return float(np.dot(values, weights)) / total if total > 0 else float(values.mean())
