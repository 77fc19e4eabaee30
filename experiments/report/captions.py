"""What the charts show, in words: a caption under each, and a text for those who cannot see it.

Knows the names of the project's charts. One that is not listed is called by its file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.report.metrics import seconds
from experiments.report.page import Chart

CAPTIONS = {
    "latency_cdf": "Distribution of every latency: the share of requests that had at most so much.",
    "latency_over_time": "Latency of each request at its arrival. A rise without return means that "
    "the server cannot keep up.",
    "itl_distribution": "Gaps between two tokens of a request. A second hump is decode steps that "
    "carried prompt tokens.",
    "throughput_over_time": "Tokens per second over the run.",
    "queue_over_time": "Running and waiting requests over the run.",
    "kv_usage_over_time": "Share of the KV cache in use over the run.",
    "batch_composition": "What steps are made of, and how long they take.",
    "uncertainty": "Latency with its interval: the same run with errors of the step times drawn.",
    "request_gantt": "Each request from arrival to finish.",
    "throughput": "Throughput of the runs beside each other.",
    "latency": "Latency percentiles of the runs beside each other; shorter is better.",
    "cache_and_batch": "Cache hits, preemptions and batch sizes of the runs.",
    "latency_vs_throughput": "Latency against throughput. Further right and lower is better; where "
    "a curve turns upward the server is full.",
    "slo_attainment": "Share of requests within the objectives against the rate.",
}


def chart(path: Path, summary: Mapping[str, Any] | None = None) -> Chart:
    """The chart in a file, with its words; the numbers come from the summary of the run."""
    name = path.stem
    plain = name.replace("_", " ")
    caption = CAPTIONS.get(name, f"{plain[:1].upper()}{plain[1:]}.")
    return Chart(caption, path, f"Chart {plain}. {caption}{_numbers(name, summary or {})}")


def _numbers(name: str, summary: Mapping[str, Any]) -> str:
    """What a reader would take from the chart, as far as the summary knows it."""
    if name in ("latency_cdf", "latency_over_time"):
        pairs = [
            f"{short} median {seconds(summary[f'{key}_p50'])}, p99 {seconds(summary[f'{key}_p99'])}"
            for key, short in (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("e2e_s", "E2E"))
            if summary.get(f"{key}_p50") is not None and summary.get(f"{key}_p99") is not None
        ]
        return f" {'; '.join(pairs)}." if pairs else ""
    told = {
        "queue_over_time": ("waiting_max", "At most {:,.0f} requests wait."),
        "kv_usage_over_time": ("kv_usage_max", "At most {:.0%} is in use."),
        "throughput_over_time": ("output_tokens_per_s", "The mean is {:,.0f} output tokens/s."),
        "itl_distribution": ("itl_s_p99", "The p99 is {:.4f} s."),
    }
    key, text = told.get(name, ("", ""))
    value = summary.get(key)
    return f" {text.format(value)}" if isinstance(value, int | float) else ""
