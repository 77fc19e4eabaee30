"""The numbers of a `summary.json` as headlines and tables, with units and words for people.

Knows the keys of a summary and what they mean. Computes nothing but units.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.page import NOTHING, Headline, Table, number

Summary = Mapping[str, Any]

LATENCIES = (
    ("ttft_s", "time to first token (TTFT)"),
    ("tpot_s", "time per output token (TPOT)"),
    ("itl_s", "gap between two tokens (ITL)"),
    ("e2e_s", "end to end (E2E)"),
    ("queue_s", "waiting in the queue"),
    ("send_delay_s", "waiting in the client before it was sent"),
    ("normalized_latency_s", "end to end per output token"),
)
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
# key, name, unit, factor, meaning
METRICS: tuple[tuple[str, str, str, float, str], ...] = (
    ("requests", "requests", "", 1, "that arrived"),
    ("finished", "finished", "", 1, "answered to the end"),
    ("duration_s", "duration", "s", 1, "first arrival to last event"),
    ("requests_per_s", "finished requests", "1/s", 1, "over the duration"),
    ("output_tokens_per_s", "output tokens", "1/s", 1, "over the duration"),
    ("prompt_tokens_per_s", "prompt tokens", "1/s", 1, "cached ones included"),
    ("goodput_requests_per_s", "goodput", "requests/s", 1, "requests within all limits of the SLO"),
    ("slo_attainment", "within the SLO", "%", 100, "share of all requests"),
    ("prefix_hit_rate", "prefix cache hits", "%", 100, "share of prompt tokens looked up"),
    ("peak_concurrency", "open requests, most", "", 1, "as the client saw them"),
    ("preemptions", "preemptions", "", 1, "times a running request was thrown out"),
    ("kv_usage_mean", "KV cache in use, mean", "%", 100, "weighted by the steps' durations"),
    ("kv_usage_max", "KV cache in use, most", "%", 100, "of the blocks of a replica"),
    ("batch_size_mean", "running requests, mean", "", 1, "weighted by the steps' durations"),
    ("batch_size_max", "running requests, most", "", 1, "in one step"),
    ("waiting_max", "waiting requests, most", "", 1, "at the start of a step"),
    ("busy_fraction", "busy", "%", 100, "share of the time in which a replica runs a step"),
    ("fairness_service", "fairness of service", "", 1, "Jain's index over clients; 1 is even"),
    ("extrapolated_steps", "extrapolated steps", "", 1, "priced outside the cost model's data"),
    ("steps", "steps", "", 1, "of all replicas"),
    ("num_kv_blocks", "KV blocks", "", 1, "of a replica"),
    ("max_num_batched_tokens", "token budget of a step", "tokens", 1, "as used"),
    ("simulation_cpu_s", "computed in", "CPU s", 1, "workload and simulation"),
)


def seconds(*values: float | None) -> str:
    """Times for people, in one unit: `12.3 ms`, `98.5 / 703 ms`."""
    known = [abs(value) for value in values if value is not None]
    factor, unit = (1e3, "ms") if known and max(known) < 1 else (1.0, "s")
    words = [NOTHING if value is None else _three(value * factor) for value in values]
    return f"{' / '.join(words)} {unit}"


def _three(value: float) -> str:
    """Three significant digits; four before the point stay whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def headlines(summary: Summary) -> list[Headline]:
    """The numbers to begin with; those that the run does not have are left out."""
    made = [
        _throughput(summary),
        _percentiles(
            summary,
            "ttft_s",
            "Time to first token",
            "from arrival; half of the requests"
            " had their first token by the first time, 99 of 100 by the second",
        ),
        _percentiles(
            summary,
            "tpot_s",
            "Time per output token",
            "mean gap between the tokens of a request; median and p99 over requests",
        ),
        _goodput(summary),
        _finished(summary),
    ]
    return [headline for headline in made if headline is not None]


def _throughput(summary: Summary) -> Headline | None:
    rate = summary.get("output_tokens_per_s")
    if rate is None:
        return None
    meaning = f"over {seconds(summary.get('duration_s'))}, all replicas"
    return Headline(
        "Output tokens per second",
        number(rate),
        meaning + _surely(summary, interval(summary, "output_tokens_per_s")),
    )


def _surely(summary: Summary, words: str) -> str:
    level = summary.get("uncertainty_level")
    return f"; {level:.0%} interval {words}" if words and isinstance(level, float) else ""


def _percentiles(summary: Summary, key: str, name: str, meaning: str) -> Headline | None:
    p50, p99 = summary.get(f"{key}_p50"), summary.get(f"{key}_p99")
    if p50 is None or p99 is None:
        return None
    ends = [summary.get(f"{key}_p99_{end}") for end in ("low", "high")]
    words = f"of the p99 {seconds(*ends).replace(' / ', ' to ')}" if None not in ends else ""
    return Headline(f"{name}, p50 / p99", seconds(p50, p99), meaning + _surely(summary, words))


def _goodput(summary: Summary) -> Headline | None:
    rate, share = summary.get("goodput_requests_per_s"), summary.get("slo_attainment")
    if rate is None or share is None:
        return None
    meaning = f"requests per second within all limits of the SLO; {share:.1%} of all requests"
    return Headline("Goodput", number(rate), meaning)


def _finished(summary: Summary) -> Headline | None:
    finished, requests = summary.get("finished"), summary.get("requests")
    if finished is None or not requests:
        return None
    preemptions = summary.get("preemptions")
    meaning = "answered to the end"
    if preemptions is not None:  # a client of a server knows of none
        meaning += f", with {preemptions:,} preemptions on the way"
    return Headline("Requests finished", f"{finished:,} of {requests:,}", meaning)


def latency_table(summary: Summary) -> Table:
    """Every latency that the run has, a row each, with the unit that fits it."""
    rows = []
    for key, name in LATENCIES:
        values = [summary.get(f"{key}_{statistic}") for statistic in STATISTICS]
        factor, unit = _unit(values)
        if unit:
            cells = [None if value is None else value * factor for value in values]
            rows.append([name, unit, *cells])
    return Table("Latency over requests (ITL: over gaps)", ["latency", "unit", *STATISTICS], rows)


def interval_table(summary: Summary) -> Table | None:
    """How sure the latencies are, if the run says so."""
    level = summary.get("uncertainty_level")
    if not isinstance(level, float):
        return None
    rows = []
    for key, name in LATENCIES:
        for statistic in STATISTICS:
            ends = [summary.get(f"{key}_{statistic}{end}") for end in ("", "_low", "_high")]
            factor, unit = _unit(ends)
            if unit and None not in ends:
                cells = [value * factor for value in ends if value is not None]
                rows.append([f"{name}, {statistic}", unit, *cells])
    runs = summary.get("uncertainty_runs")
    caption = f"{level:.0%} intervals, from {runs} simulations with errors of the step times drawn"
    return Table(caption, ["latency", "unit", "simulated", "from", "to"], rows) if rows else None


def _unit(values: Sequence[float | None]) -> tuple[float, str]:
    """(factor, unit) for a row of times; no unit where there is none to show."""
    known = [value for value in values if value is not None]
    if not known:
        return 1.0, ""
    small = max(known) < 1 or (min(known) < 0.5 and max(known) < 10)
    return (1e3, "ms") if small else (1.0, "s")


def interval(summary: Summary, key: str, factor: float = 1.0) -> str:
    """The interval of a number in words, or nothing: `12.3 to 14.5`."""
    low, high = summary.get(f"{key}_low"), summary.get(f"{key}_high")
    if low is None or high is None:
        return ""
    return f"{number(low * factor)} to {number(high * factor)}"


def metric_table(summary: Summary) -> Table:
    """The other metrics that the run has, each with its meaning and perhaps its interval."""
    rows: list[list[Any]] = []
    for key, name, unit, factor, meaning in METRICS:
        value = summary.get(key)
        if isinstance(value, int | float):
            shown = value * factor if factor != 1 else value
            rows.append([name, shown, unit, interval(summary, key, factor), meaning])
    columns = ["metric", "value", "unit", "interval", "meaning"]
    if not any(row[3] for row in rows):
        rows = [[*row[:3], *row[4:]] for row in rows]
        columns.remove("interval")
    return Table("Metrics of the run", columns, rows)
