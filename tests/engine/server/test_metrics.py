"""What the metrics say of steps and requests, and whether their names are those of vLLM."""

from pathlib import Path

import pytest

from engine.server.metrics import ServerMetrics
from tests.engine.server.exposition import Exposition
from tests.engine.server.listening import INFO, make_state, record, step_stats
from workbench.sampling_params import SamplingParams

GOLDEN = Path(__file__).resolve().parents[4] / "shared/golden/vllm_metrics_after_load.txt"
LEFT_OUT = (
    "vllm:engine_sleep_state",
    "vllm:estimated_flops_per_gpu",
    "vllm:estimated_read_bytes_per_gpu",
    "vllm:estimated_write_bytes_per_gpu",
    "vllm:external_prefix_cache",
    "vllm:mm_cache",
)
PARAMS = SamplingParams(max_tokens=8)


@pytest.fixture
def metrics() -> ServerMetrics:
    return make_metrics("tiny")


def make_metrics(model_name: str) -> ServerMetrics:
    return ServerMetrics(INFO, model_name, make_state())


def shown(metrics: ServerMetrics) -> Exposition:
    return Exposition(metrics.render().decode())


@pytest.mark.skipif(not GOLDEN.exists(), reason="the answers of a real vLLM are not here")
def test_names_kinds_labels_and_buckets_are_those_of_vllm(metrics: ServerMetrics) -> None:
    metrics.http.observe("/v1/completions", "POST", 200, 0.1, 10, 20)
    golden, ours = Exposition(GOLDEN.read_text()), shown(metrics)
    wanted = {n: kind for n, kind in golden.types().items() if not n.startswith(LEFT_OUT)}
    assert wanted.items() <= ours.types().items()
    our_labels = ours.labels()
    for name, labels in golden.labels().items():
        if name.startswith(LEFT_OUT):
            continue
        if name == "vllm:cache_config_info":
            assert set().union(*our_labels[name]) <= set().union(*labels)
            continue
        assert labels == our_labels[name], name
    for name, kind in wanted.items():
        if kind == "histogram":
            assert golden.buckets(name) == ours.buckets(name), name


def test_only_the_samples_that_are_asked_for(metrics: ServerMetrics) -> None:
    content = metrics.render(["vllm:num_requests_running"])
    assert [s.name for s in Exposition(content.decode()).samples] == ["vllm:num_requests_running"]


def test_state_follows_the_last_step_and_ends_with_the_last_request(
    metrics: ServerMetrics,
) -> None:
    engine = metrics.engine
    engine.on_arrival("a", 30, PARAMS)
    engine.on_step(step_stats(num_running=3, num_waiting=2, num_used_blocks=50), None)
    text = shown(metrics)
    assert text.value("vllm:num_requests_running") == 3
    assert text.value("vllm:num_requests_waiting") == 2
    assert text.value("vllm:num_requests_waiting_by_reason", reason="capacity") == 2
    assert text.value("vllm:num_requests_waiting_by_reason", reason="deferred") == 0
    assert text.value("vllm:kv_cache_usage_perc") == 0.25
    engine.on_queue(3, 1)
    text = shown(metrics)
    assert text.value("vllm:num_requests_waiting") == 3
    assert text.value("vllm:num_requests_waiting_by_reason", reason="capacity") == 2
    assert text.value("vllm:num_requests_waiting_by_reason", reason="deferred") == 1
    engine.on_finished(record(finish_reasons=("abort",)))
    text = shown(metrics)
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert text.value(f"vllm:{name}") == 0


def test_totals_go_on_when_a_new_core_starts_from_zero(metrics: ServerMetrics) -> None:
    engine = metrics.engine
    names = {
        "prefix_cache_queries": "prefix_queries",
        "prefix_cache_hits": "prefix_hits",
        "num_preemptions": "num_preemptions",
        "spec_decode_num_drafts": "num_drafts",
        "spec_decode_num_draft_tokens": "num_draft_tokens",
        "spec_decode_num_accepted_tokens": "num_accepted_tokens",
    }
    fields = {field: 10 + i for i, field in enumerate(names.values())}
    engine.on_step(step_stats(**fields), None)
    assert shown(metrics).value("vllm:num_preemptions_total") == 12
    engine.on_step(step_stats(**{field: value + 5 for field, value in fields.items()}), None)
    engine.on_core_dead("killed")
    assert shown(metrics).value("vllm:num_preemptions_total") == 17
    engine.on_step(step_stats(**dict.fromkeys(fields, 2)), None)
    text = shown(metrics)
    for name, field in names.items():
        assert text.value(f"vllm:{name}_total") == fields[field] + 7
    for name in ("prompt_tokens_cached", "prefix_cache_hits"):
        assert text.value(f"vllm:{name}_total") == 18
    assert text.value("vllm:prompt_tokens_by_source_total", source="local_cache_hit") == 18
    assert text.value("vllm:prompt_tokens_cached_by_source_total", source="device") == 18


def test_a_new_core_that_has_done_more_than_the_old_one_counts_in_full(
    metrics: ServerMetrics,
) -> None:
    engine = metrics.engine
    engine.on_step(step_stats(num_preemptions=10), None)
    engine.on_core_dead("killed")
    engine.on_step(step_stats(num_preemptions=25), None)
    assert shown(metrics).value("vllm:num_preemptions_total") == 35


def test_tokens_and_the_gaps_between_them(metrics: ServerMetrics) -> None:
    engine = metrics.engine
    engine.on_arrival("a", 30, PARAMS)
    engine.on_step(step_stats(num_scheduled_tokens=14, num_prefill_tokens=14), None)
    engine.on_first_token("a", 0.05)
    engine.on_tokens("a", 1, 11.0, True)
    engine.on_tokens("a", 3, 11.02, False)
    engine.on_tokens("a", 2, 11.05, False)
    engine.on_tokens("gone", 1, 11.06, False)
    text = shown(metrics)
    assert text.value("vllm:prompt_tokens_total") == 30
    assert text.value("vllm:prompt_tokens_by_source_total", source="local_compute") == 14
    assert text.value("vllm:iteration_tokens_total_sum") == 14
    assert text.value("vllm:generation_tokens_total") == 7
    assert text.value("vllm:time_to_first_token_seconds_bucket", le="0.06") == 1
    assert text.value("vllm:time_to_first_token_seconds_sum") == 0.05
    assert text.value("vllm:inter_token_latency_seconds_count") == 2
    assert text.value("vllm:inter_token_latency_seconds_sum") == pytest.approx(0.05)


def test_drafts_that_were_kept_count_by_their_place_over_several_cores(
    metrics: ServerMetrics,
) -> None:
    at, engine = "vllm:spec_decode_num_accepted_tokens_per_pos_total", metrics.engine
    engine.on_step(step_stats(num_accepted_tokens=3, accepted_at=[2, 1]), None)
    assert [shown(metrics).value(at, position=str(i)) for i in range(2)] == [2, 1]
    engine.on_core_dead("killed")
    engine.on_step(step_stats(num_accepted_tokens=9, accepted_at=[5, 3, 1]), None)
    text = shown(metrics)
    assert [text.value(at, position=str(i)) for i in range(3)] == [7, 4, 1]
    assert text.value("vllm:spec_decode_num_accepted_tokens_total") == 12


def test_answers_of_one_request_have_gaps_of_their_own(metrics: ServerMetrics) -> None:
    engine = metrics.engine
    engine.on_arrival("a", 30, SamplingParams(n=2))
    engine.on_tokens("a", 1, 1.0, True)
    engine.on_tokens("a", 1, 1.0, False)
    engine.on_tokens("a", 1, 1.5, False)
    engine.on_tokens("a", 1, 1.5, False)
    text = shown(metrics)
    assert text.value("vllm:prompt_tokens_total") == 30
    assert text.value("vllm:inter_token_latency_seconds_count") == 2
    assert text.value("vllm:inter_token_latency_seconds_sum") == 1.0


def test_a_request_that_completed_enters_every_histogram(metrics: ServerMetrics) -> None:
    metrics.engine.on_finished(record())
    text = shown(metrics)
    sums = {
        "request_prompt_tokens": 30,
        "request_generation_tokens": 5,
        "request_max_num_generation_tokens": 5,
        "request_params_n": 1,
        "request_params_max_tokens": 8,
        "request_prefill_kv_computed_tokens": 14,
        "request_num_preemptions": 1,
        "request_queue_time_seconds": 0.5,
        "request_prefill_time_seconds": 0.5,
        "request_decode_time_seconds": 2.0,
        "request_inference_time_seconds": 2.5,
        "e2e_request_latency_seconds": 3.5,
        "request_time_per_output_token_seconds": 0.5,
    }
    for name, total in sums.items():
        assert (text.value(f"vllm:{name}_count"), text.value(f"vllm:{name}_sum")) == (1, total)
    assert text.value("vllm:request_success_total", finished_reason="stop") == 1


def test_a_request_that_broke_off_has_no_latency_of_a_whole_one(metrics: ServerMetrics) -> None:
    metrics.engine.on_finished(record(finish_reasons=("abort",)))
    never_ran = {"scheduled_time": None, "first_token_time": None, "last_token_time": None}
    metrics.engine.on_finished(record("b", finish_reasons=("error",), **never_ran))
    text = shown(metrics)
    assert text.value("vllm:request_queue_time_seconds_count") == 1
    assert text.value("vllm:request_prompt_tokens_count") == 1
    assert text.value("vllm:e2e_request_latency_seconds_count") == 0
    assert text.value("vllm:request_success_total", finished_reason="abort") == 1
    assert text.value("vllm:request_success_total", finished_reason="error") == 1


def test_each_answer_counts_as_one_that_ended(metrics: ServerMetrics) -> None:
    metrics.engine.on_finished(record(finish_reasons=("stop", "length", "length")))
    text = shown(metrics)
    assert text.value("vllm:request_success_total", finished_reason="length") == 2
    assert text.value("vllm:request_prompt_tokens_count") == 1


def test_the_cache_is_described(metrics: ServerMetrics) -> None:
    facts = {"block_size": "16", "num_gpu_blocks": "200", "enable_prefix_caching": "True"}
    assert shown(metrics).value("vllm:cache_config_info", **facts) == 1


def test_a_model_name_is_escaped() -> None:
    name = 'a"b\\c\nd'
    text = shown(make_metrics(name))
    assert text.value("vllm:num_requests_running", model_name=name) == 0


def test_what_endpoints_turn_away_and_parse_is_told() -> None:
    state = make_state()
    metrics = ServerMetrics(INFO, "tiny", state)
    state.num_rejected += 1
    state.note_tool_parse(is_streaming=True, has_calls=False)
    text = shown(metrics)
    assert text.value("vllm:admission_rejections_total", reason="max_num_queued_reqs") == 1
    counted = {"mode": "streaming", "outcome": "no_tool_call"}
    assert text.value("vllm:tool_call_parser_invocations_total", **counted) == 1
