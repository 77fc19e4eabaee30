"""Titles of swept settings: words and units, not names of fields."""

import pytest

from experiments.figures.titles import axis_title, is_rate


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("cache.num_gpu_blocks_override", "KV cache (blocks)"),
        ("workload.arrivals.rate", "arrival rate (requests/s)"),
        ("workload.rate_scale", "arrivals, times the rate of the workload"),
        ("cluster.acceptance_rate", "share of draft tokens accepted"),
        ("slo.ttft_s", "ttft (s)"),
        ("queue.aging", "aging"),
    ],
)
def test_titles(key: str, title: str) -> None:
    assert axis_title(key) == title


def test_what_arrives_may_be_something_else() -> None:
    assert axis_title("workload.arrivals.rate", "conversations") == "arrival rate (conversations/s)"


def test_rates_of_arrival_are_no_other_rates() -> None:
    assert is_rate("workload.arrivals.rate")
    assert is_rate("workload.rate_scale")
    assert not is_rate("cluster.acceptance_rate")
    assert not is_rate("cost_model.iterations")
