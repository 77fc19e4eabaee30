"""A load test's result as a table on a terminal.

Knows words and columns. Computes nothing: counts come from the result, statistics of latencies
from `vllm_names`, so that the table and the result file cannot differ.
"""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.bench.results import BenchResult
from experiments.bench.vllm_names import QUEUE, WITH_QUEUE, latencies, statistics
from experiments.terminal import print_numbers
from workbench.metrics import SLO

NAMES = {
    "ttft": "time to first token (TTFT)",
    "tpot": "time per output token (TPOT)",
    "itl": "between two tokens (ITL)",
    "e2el": "end to end (E2E)",
    QUEUE: "waiting in the client",
    WITH_QUEUE: "end to end, that included",
}
WHERE = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}


def print_result(
    result: BenchResult,
    slo: SLO,
    metrics: Sequence[str],
    percentiles: Sequence[float],
    console: Console,
) -> None:
    """The counts, the latencies, and everything that a reader must know to trust them."""
    console.print(_counts(result, slo))
    shown = [*metrics, *([QUEUE, WITH_QUEUE] if result.has_send_delay else [])]
    if result.num_failed < len(result.records):
        print_numbers(console, *_latencies(result, shown, percentiles))
    for kind, number, detail in result.failure_counts():
        text = f"{number} x {kind}" + (f"; the first: {detail}" if detail else "")
        console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    for note in notes(result):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _counts(result: BenchResult, slo: SLO) -> Table:
    columns, seconds = result.columns, max(result.duration_s, 1e-9)
    good = [failure is None for failure in result.failures]
    inputs, outputs = (int(c[good].sum()) for c in (columns.prompt_tokens, columns.output_tokens))
    table = Table(box=SIMPLE_HEAD, show_header=False, pad_edge=False, title="Load test")
    table.add_column("what")
    table.add_column("how much", justify="right", no_wrap=True)
    rows = [
        ("successful requests", f"{sum(good):,}"),
        ("failed requests", f"{result.num_failed:,}"),
        ("duration (s)", f"{result.duration_s:,.2f}"),
        ("input tokens", f"{inputs:,}"),
        ("output tokens", f"{outputs:,}"),
        ("requests per second", f"{sum(good) / seconds:,.2f}"),
        ("output tokens per second", f"{outputs / seconds:,.1f}"),
        ("all tokens per second", f"{(inputs + outputs) / seconds:,.1f}"),
        ("most output tokens in a second", f"{result.peak_output_tokens_per_s():,.0f}"),
        ("most requests open at a time", f"{result.peak_concurrency:,}"),
    ]
    if result.cached_tokens_known and inputs:
        cached = int(columns.cached_tokens[good].sum())
        rows.append(("input tokens from the prefix cache", f"{cached / inputs:.1%}"))
    if not slo.is_empty:
        met = int(slo.met(result.from_sending).sum())
        rows.append((f"goodput (requests per second; {_limits(slo)})", f"{met / seconds:,.2f}"))
        if result.has_send_delay:
            met = int(slo.met(columns).sum())
            rows.append(("goodput, waiting in the client included", f"{met / seconds:,.2f}"))
    for row in rows:
        table.add_row(*row)
    return table


def _limits(slo: SLO) -> str:
    told = [(WHERE[name], getattr(slo, name)) for name in WHERE]
    return ", ".join(f"{name} {limit * 1e3:g} ms" for name, limit in told if limit is not None)


def _latencies(
    result: BenchResult, shown: Sequence[str], percentiles: Sequence[float]
) -> tuple[list[str], list[list[str]]]:
    """(headings, rows) of the statistics of each latency; empty cells where it has no value."""
    names = ["latency (ms)", "mean", "median", *(f"p{p:g}" for p in percentiles if p != 50)]
    values, rows = latencies(result), []
    for metric in shown:
        told = statistics(values[metric], [p for p in percentiles if p != 50])
        del told["std"]
        cells = [f"{value:,.2f}" for value in told.values()] if len(values[metric]) else []
        rows.append([NAMES[metric], *cells])
    return names, rows


def notes(result: BenchResult) -> list[str]:
    """What is not as a reader would think."""
    told = []
    if result.interrupted:
        told.append("the load was interrupted: what had ended by then is in these numbers")
    if unfinished := sum(r.finish_reason == "unfinished" for r in result.records):
        told.append(f"{unfinished} requests were open when it was stopped; they count as failed")
    if result.num_unsent:
        told.append(f"{result.num_unsent} requests were due and had no place before the end")
    if result.num_other_length:
        told.append(f"{result.num_other_length} answers have another length than was asked for")
    if result.num_inexact:
        told.append(
            f"{result.num_inexact} answers came in pieces of several tokens, whose times are those"
            " of the pieces by the length of their texts: --return-token-ids makes them exact"
        )
    if result.num_unlearned:
        told.append(
            f"{result.num_unlearned} answers could not be repeated by the next turn, for their"
            " tokens are not known: add --return-token-ids (the server must know it) or --tokenizer"
        )
    return told
