"""The arithmetic of a load test is that of `workbench.metrics`, and vLLM's names mean the same."""

import numpy as np
import pytest
from rich.console import Console

from experiments.bench.answer import Answer
from experiments.bench.http import Exchange
from experiments.bench.load import Sent
from experiments.bench.results import collect
from experiments.bench.table import print_result
from experiments.bench.vllm_names import latencies, statistics, vllm_result
from workbench.metrics import SLO, StepLog, summarize
from workbench.workload.base import WorkloadRequest

START = 1000.0
NO_SLO = SLO()


def answered(number, due, sent, times, failure=None, reason="length", cached=None):
    """(what was sent, its answer) with times in seconds since the begin."""
    times = np.array(times, dtype=np.float64)
    item = WorkloadRequest(str(number), due, 10, len(times))
    answer = Answer(
        str(number),
        START + sent,
        START + (times[-1] + 0.01 if len(times) else sent + 0.5),
        START + times,
        finish_reason=reason,
        prompt_tokens=12,
        cached_tokens=cached,
        failure=failure,
    )
    return Sent(item, due, Exchange(str(number), b"")), answer


def result(*pairs, **facts):
    sent, answers = zip(*pairs, strict=True)
    return collect(sent, answers, START, 10.0, **facts)


PAIRS = (
    answered(0, 0.0, 0.0, [0.1, 0.15, 0.25]),
    answered(1, 1.0, 1.5, [1.8]),
    answered(2, 2.0, 2.0, [2.4, 2.4, 2.5, 2.9], reason="stop"),
    answered(3, 3.0, 3.0, [3.1], failure=("connection lost", "in the middle")),
    answered(4, 4.0, 4.0, [], failure=("status 503", "full")),
    answered(5, 5.0, 5.0, [5.2], failure=("cancelled", "by the client")),
)


def test_the_summary_is_that_of_the_records():
    found = result(*PAIRS)
    slo = SLO(ttft_s=0.5)
    summary = found.summary(slo)
    plain = summarize(found.records, StepLog(), slo, duration_s=10.0)
    for name, value in plain.items():
        if name not in ("preemptions", "busy_fraction", "steps"):
            assert summary[name] == value, name
    assert summary["preemptions"] is None
    assert (summary["requests"], summary["finished"], summary["error"]) == (6, 3, 2)
    assert summary["unfinished"] == 1
    assert summary["prompt_tokens"] == 12 * 5
    assert summary["failures"] == {"connection lost": 1, "status 503": 1, "cancelled": 1}


def test_latencies_count_from_the_time_at_which_a_request_was_due():
    found = result(*PAIRS)
    assert found.columns.ttft_s[:3] == pytest.approx([0.1, 0.8, 0.4])
    assert found.from_sending.ttft_s[:3] == pytest.approx([0.1, 0.3, 0.4])
    assert found.send_delay_s[:3] == pytest.approx([0.0, 0.5, 0.0])
    assert found.has_send_delay


def test_statistics_under_vllms_names():
    told = vllm_result(result(*PAIRS), SLO(ttft_s=0.35), {}, ["ttft", "tpot", "itl", "e2el"], [99])
    assert (told["completed"], told["failed"]) == (3, 3)
    assert told["total_input_tokens"] == 36
    assert told["total_output_tokens"] == 8
    assert told["output_throughput"] == pytest.approx(0.8)
    assert told["request_goodput"] == pytest.approx(0.2)  # 0.1 and 0.3 s, from sending
    assert told["mean_ttft_ms"] == pytest.approx((100 + 300 + 400) / 3)
    assert told["median_tpot_ms"] == pytest.approx((75 + 500 / 3) / 2)
    assert told["mean_itl_ms"] == pytest.approx((50 + 100 + 0 + 100 + 400) / 5)
    assert told["p99_ttft_ms"] == pytest.approx(np.percentile([100, 300, 400], 99))
    assert told["mean_client_queue_time_ms"] == pytest.approx(500 / 3)
    assert told["max_concurrent_requests"] == 1
    assert told["max_output_tokens_per_s"] == 4


def test_no_goodput_without_limits_and_no_details_unless_asked():
    told = vllm_result(result(*PAIRS), NO_SLO, {}, ["ttft"], [99])
    assert told["request_goodput"] is None
    assert "ttfts" not in told
    detailed = vllm_result(result(*PAIRS), NO_SLO, {}, ["ttft"], [99], is_detailed=True)
    assert detailed["itls"][0] == pytest.approx([0.05, 0.1])
    assert detailed["ttfts"][4] == 0.0
    assert len(detailed["errors"]) == len(detailed["start_times"]) == 6


def test_a_result_without_any_success():
    found = result(PAIRS[4])
    told = vllm_result(found, SLO(ttft_s=1.0), {}, ["ttft", "itl"], [50, 99.9])
    assert told["completed"] == 0
    assert told["p99.9_itl_ms"] == 0.0
    assert statistics(latencies(found)["ttft"], [50])["mean"] == 0.0


def test_peak_concurrency_counts_open_requests():
    pairs = [answered(i, 0.0, s, [e]) for i, (s, e) in enumerate([(0, 2), (1, 3), (2.5, 4)])]
    assert result(*pairs).peak_concurrency == 2


def test_a_cache_that_tells_has_a_hit_rate():
    summary = result(answered(0, 0.0, 0.0, [0.1], cached=6)).summary(NO_SLO)
    assert summary["prefix_hit_rate"] == pytest.approx(0.5)
    assert result(answered(0, 0.0, 0.0, [0.1])).summary(NO_SLO)["prefix_hit_rate"] is None


def shown(found, slo=NO_SLO):
    console = Console(width=120, force_terminal=False, highlight=False)
    with console.capture() as capture:
        print_result(found, slo, ["ttft", "tpot"], [50, 99], console)
    return capture.get()


def test_the_table_shows_failures_by_reason_and_what_was_waited():
    text = shown(result(*PAIRS, interrupted=True, num_unsent=7), SLO(ttft_s=0.35, tpot_s=1.0))
    assert "1 x connection lost; the first: in the middle" in text
    assert "1 x status 503; the first: full" in text
    assert "waiting in the client" in text
    assert "TTFT 350 ms, TPOT 1000 ms" in text
    assert "266.67" in text  # mean TTFT
    assert "interrupted" in text
    assert "7 requests were due" in text


def test_a_table_without_any_success_has_no_latencies():
    text = shown(result(PAIRS[4]))
    assert "TTFT" not in text
    assert "status 503" in text
