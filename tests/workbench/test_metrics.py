"""Latencies and summaries against numbers worked out by hand."""

import json

import numpy as np
import pytest

from workbench.errors import ConfigError, WorkbenchError
from workbench.metrics import (
    SLO,
    RequestColumns,
    RequestRecord,
    StepLog,
    distribution,
    jain_index,
    summarize,
)


def record(
    request_id="a",
    *,
    arrival=0.0,
    scheduled=0.0,
    tokens=(),
    finish=None,
    reason="stop",
    prompt=10,
    cached=0,
    preemptions=0,
    replica=0,
    client="default",
):
    return RequestRecord(
        request_id=request_id,
        replica=replica,
        arrival_s=arrival,
        first_scheduled_s=scheduled,
        finish_s=finish,
        prompt_tokens=prompt,
        output_tokens=len(tokens),
        cached_tokens=cached,
        preemptions=preemptions,
        finish_reason=reason,
        token_times_s=np.array(tokens, dtype=np.float64),
        client_id=client,
    )


def two_requests():
    return [
        record("a", arrival=1.0, scheduled=1.5, tokens=(2.0, 2.5, 3.5), finish=3.5, prompt=10),
        record("b", arrival=2.0, scheduled=2.0, tokens=(2.5,), finish=2.5, prompt=30, cached=16),
    ]


def two_steps():
    steps = StepLog()
    steps.append(0, 1.5, 0.5, 10, 10, 0, 1, 0, 0, 4)
    steps.append(0, 2.0, 1.5, 15, 14, 1, 2, 1, 0, 8)
    return steps


def test_latencies_follow_their_formulas():
    columns = RequestColumns.from_records(two_requests())
    assert columns.queue_s.tolist() == [0.5, 0.0]
    assert columns.ttft_s.tolist() == [1.0, 0.5]
    assert columns.tpot_s[0] == pytest.approx(1.5 / 2)
    assert np.isnan(columns.tpot_s[1])
    assert columns.itl_s.tolist() == [0.5, 1.0]
    assert columns.itl_offsets.tolist() == [0, 2, 2]
    assert columns.e2e_s.tolist() == [2.5, 0.5]
    assert columns.normalized_latency_s.tolist() == pytest.approx([2.5 / 3, 0.5])


def test_summary_of_two_requests():
    summary = summarize(two_requests(), two_steps(), num_kv_blocks=16)
    assert summary["requests"] == summary["finished"] == summary["stopped"] == 2
    assert summary["duration_s"] == 2.5
    assert summary["output_tokens"] == 4
    assert summary["prompt_tokens"] == 40
    assert summary["requests_per_s"] == pytest.approx(0.8)
    assert summary["output_tokens_per_s"] == pytest.approx(1.6)
    assert summary["prompt_tokens_per_s"] == pytest.approx(16)
    assert summary["total_tokens_per_s"] == pytest.approx(17.6)
    assert summary["ttft_s_mean"] == pytest.approx(0.75)
    assert summary["ttft_s_p50"] == pytest.approx(0.75)
    assert summary["ttft_s_p90"] == pytest.approx(0.95)
    assert summary["ttft_s_max"] == 1.0
    assert summary["tpot_s_p99"] == 0.75
    assert summary["prefix_hit_rate"] == pytest.approx(16 / 40)


def test_step_statistics_are_weighted_by_time():
    summary = summarize(two_requests(), two_steps(), num_kv_blocks=16)
    assert summary["steps"] == 2
    assert summary["batch_size_mean"] == pytest.approx((1 * 0.5 + 2 * 1.5) / 2)
    assert summary["batch_tokens_mean"] == 12.5
    assert summary["kv_usage_mean"] == pytest.approx((0.25 * 0.5 + 0.5 * 1.5) / 2)
    assert summary["kv_usage_max"] == 0.5
    assert summary["busy_fraction"] == pytest.approx(2.0 / 2.5)
    assert summary["step_s_max"] == 1.5


def test_idle_replicas_are_not_busy():
    def busy(**options):
        return summarize(two_requests(), two_steps(), **options)["busy_fraction"]

    assert busy(replicas=4) == pytest.approx(2.0 / (4 * 2.5))
    on_the_second = [record("a", tokens=(2.0,), finish=3.5, replica=1)]
    summary = summarize(on_the_second, two_steps(), duration_s=4.0)
    assert summary["busy_fraction"] == pytest.approx(2.0 / (2 * 4.0))
    assert summarize([], StepLog())["busy_fraction"] is None


def test_why_a_request_was_not_served_is_kept():
    refused = record("no", scheduled=None, finish=0.0, reason="ignored")
    refused.finish_detail = "too long"
    columns = RequestColumns.from_records([*two_requests(), refused])
    assert columns.finish_detail == [None, None, "too long"]
    assert columns.records()[2] == refused
    assert len({refused, columns.records()[2]}) == 1


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_a_positive_number(limit):
    with pytest.raises(ConfigError, match=r"slo\.ttft_s=.* must be > 0 s and finite"):
        SLO(ttft_s=limit)


def test_kv_capacity_may_differ_between_replicas():
    steps = StepLog()
    steps.append(0, 0.0, 1.0, 1, 1, 0, 1, 0, 0, 5)
    steps.append(1, 0.0, 1.0, 1, 1, 0, 1, 0, 0, 5)
    summary = summarize([], steps, num_kv_blocks=[10, 20])
    assert summary["kv_usage_max"] == 0.5
    assert summary["kv_usage_mean"] == pytest.approx(0.375)
    assert summarize([], steps)["kv_usage_mean"] is None


def test_every_kind_of_end_is_counted_once():
    records = [
        record("stop", tokens=(1.0, 2.0), finish=2.0),
        record("length", tokens=(1.0, 2.0), finish=2.0, reason="length"),
        record("abort", tokens=(1.0, 3.0), finish=3.5, reason="abort"),
        record("ignored", scheduled=None, finish=0.0, reason="ignored", prompt=9999),
        record("error", scheduled=None, finish=0.0, reason="error"),
        record("late", scheduled=None, reason="unfinished"),
        record("cut", tokens=(1.5,), reason=""),
    ]
    summary = summarize(records, StepLog())
    kinds = ("stopped", "length", "aborted", "ignored", "error", "unfinished")
    assert [summary[k] for k in kinds] == [1, 1, 1, 1, 1, 2]
    assert sum(summary[k] for k in kinds) == summary["requests"] == 7
    assert summary["finished"] == 2
    assert summary["output_tokens"] == 7
    assert summary["prompt_tokens"] == 40


def test_an_aborted_request_has_a_first_token_but_no_end_to_end_latency():
    aborted = record("x", tokens=(1.0, 3.0), finish=3.5, reason="abort")
    summary = summarize([aborted], StepLog())
    assert summary["ttft_s_mean"] == 1.0
    assert summary["itl_s_mean"] == 2.0
    assert summary["e2e_s_mean"] is None
    assert summary["normalized_latency_s_p99"] is None
    assert summary["finished"] == 0


def test_goodput_counts_requests_that_meet_every_limit():
    records = two_requests()
    strict = summarize(records, StepLog(), SLO(ttft_s=0.6, tpot_s=1.0))
    assert strict["slo_attainment"] == 0.5
    assert strict["goodput_requests_per_s"] == pytest.approx(1 / 2.5)
    assert summarize(records, StepLog(), SLO(ttft_s=1.0))["slo_attainment"] == 1.0
    assert summarize(records, StepLog(), SLO(tpot_s=0.7))["slo_attainment"] == 0.5
    assert summarize(records, StepLog(), SLO(e2e_s=0.4))["slo_attainment"] == 0.0


def test_without_objectives_there_is_no_goodput():
    for slo in (None, SLO()):
        assert summarize(two_requests(), StepLog(), slo)["goodput_requests_per_s"] is None


def test_refused_requests_lower_the_attainment():
    records = [*two_requests(), record("r", scheduled=None, finish=0.0, reason="ignored")]
    assert summarize(records, StepLog(), SLO(ttft_s=9.0))["slo_attainment"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_slo_refuses_a_limit_that_nothing_can_meet(limit):
    with pytest.raises(ConfigError, match=r"slo\.ttft_s"):
        SLO(ttft_s=limit)


def test_counters_of_the_cache_go_before_the_records():
    counters = {"prefix_queries_tokens": 200.0, "prefix_hit_tokens": 50.0}
    assert summarize(two_requests(), StepLog(), counters=counters)["prefix_hit_rate"] == 0.25
    counters = {"prefix_queries_tokens": 0.0, "prefix_hit_tokens": 0.0}
    assert summarize(two_requests(), StepLog(), counters=counters)["prefix_hit_rate"] is None


def test_an_empty_run_gives_none_and_valid_json():
    summary = summarize([], StepLog(), SLO(ttft_s=1.0))
    assert summary["requests"] == summary["steps"] == summary["preemptions"] == 0
    assert summary["ttft_s_p99"] is None
    assert summary["requests_per_s"] is None
    assert summary["slo_attainment"] is None
    json.dumps(summary, allow_nan=False)


def test_the_given_duration_is_used():
    assert summarize(two_requests(), StepLog(), duration_s=10.0)["requests_per_s"] == 0.2


def test_fairness_between_clients():
    records = [
        record("a", tokens=(1.0,), finish=1.0, prompt=8, client="x"),
        record("b", tokens=(2.0,), finish=2.0, prompt=8, client="y"),
    ]
    summary = summarize(records, StepLog())
    assert summary["clients"] == 2
    assert summary["fairness_service"] == pytest.approx(1.0)
    assert summary["fairness_latency"] == pytest.approx(9 / 10)
    assert summarize(records[:1], StepLog())["fairness_service"] is None


def test_jain_index():
    assert jain_index(np.array([3.0, 3.0, 3.0])) == pytest.approx(1.0)
    assert jain_index(np.array([5.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert jain_index(np.zeros(3)) is None
    assert jain_index(np.empty(0)) is None


def test_distribution_of_one_value():
    assert distribution("x", np.array([2.0])) == {
        "x_mean": 2.0,
        "x_std": 0.0,
        **{f"x_p{p}": 2.0 for p in (50, 90, 95, 99)},
        "x_max": 2.0,
    }


def test_an_unknown_finish_reason_is_refused_by_name():
    with pytest.raises(WorkbenchError, match="'vanished'"):
        RequestColumns.from_records([record(reason="vanished")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduled": -1.0}, "scheduled before arrival"),
        ({"tokens": (2.0, 1.0), "finish": 2.0}, "a token before"),
        ({"tokens": (2.0,), "finish": 1.0}, "last token after the finish"),
        ({"cached": 11}, "more cached"),
    ],
)
def test_check_integrity_names_the_request(changes, message):
    columns = RequestColumns.from_records([record("good"), record("bad", **changes)])
    with pytest.raises(WorkbenchError, match=f"'bad': .*{message}"):
        columns.check_integrity()


def test_records_compare_by_value():
    first, second = two_requests()
    assert first == two_requests()[0]
    assert first != second
    assert first != "a"


def test_a_truncated_answer_is_finished_and_meets_no_objective():
    cut, whole = (record(n, tokens=(1.0,), finish=1.0, reason="length") for n in "ab")
    cut.finish_detail = "the answer was cut at 1 of 9 tokens"
    stopped = record("c", tokens=(1.0,), finish=1.0)
    stopped.finish_detail = "whatever"
    summary = summarize([cut, whole, stopped], StepLog(), SLO(ttft_s=5.0))
    assert [summary[key] for key in ("finished", "length", "truncated")] == [3, 2, 1]
    assert summary["slo_attainment"] == pytest.approx(2 / 3)
