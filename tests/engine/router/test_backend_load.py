"""What servers say of their load is read as far as it makes sense, and never breaks the router."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.router.backend_load import BackendLoad, load_from_json, load_from_metrics

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_running{engine="1",model_name="tiny"} 1.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.1
vllm:e2e_request_latency_seconds_bucket{le="0.3",model_name="tiny"} 1.0
"""


def test_our_own_form() -> None:
    said = {
        "server_load": 5, "num_running": 3, "num_waiting": 2, "num_outstanding_tokens": 900,
        "kv_cache_usage": 0.25, "is_draining": True, "world": "simulator",
    }  # fmt: skip
    load = load_from_json(said)
    assert load == BackendLoad(3, 2, 900, 0.25, True)
    assert load.num_requests == 5


def test_vllm_says_it_in_its_metrics() -> None:
    load = load_from_metrics(VLLM)
    assert load is not None
    assert (load.num_running, load.num_waiting) == (4, 2)
    assert load.kv_cache_usage == pytest.approx(0.3)
    assert load.num_outstanding_tokens is None


def test_older_servers_name_the_cache_differently() -> None:
    text = "vllm:num_requests_running 1\nvllm:gpu_cache_usage_perc 0.75\n"
    assert load_from_metrics(text) == BackendLoad(1, 0, None, 0.75)


@pytest.mark.parametrize("text", ["", "up 1\n", "vllm:num_requests_running{ 3", "\x00\n"])
def test_other_texts_are_no_report(text: str) -> None:
    assert load_from_metrics(text) is None


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
NAMES = ("num_running", "num_waiting", "num_outstanding_tokens", "kv_cache_usage", "is_draining")


@given(json | st.dictionaries(st.sampled_from(NAMES), json))
@settings(max_examples=50, deadline=None)
def test_whatever_is_said_gives_numbers_in_range(said: Any) -> None:
    load = load_from_json(said)
    if load is not None:
        assert min(load.num_running, load.num_waiting, load.num_outstanding_tokens or 0) >= 0
        assert 0 <= load.kv_cache_usage <= 1
