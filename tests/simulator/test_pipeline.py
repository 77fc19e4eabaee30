"""Pipelines of several stages: overlap, speculation, and what is refused."""

from typing import Any

import numpy as np
import pytest

from simulator.cost_models.linear import ConstantCostModel
from simulator.simulation import ClusterConfig
from tests.simulator.small_runs import make_simulation, random_requests, simulate
from workbench.errors import ConfigError
from workbench.workload.base import WorkloadRequest


def test_stages_of_a_pipeline_work_at_the_same_time() -> None:
    requests = [WorkloadRequest(str(i), 0.0, 100, 50) for i in range(4)]
    settings: dict[str, Any] = {"scheduler": {"max_num_batched_tokens": 100}}
    alone, piped = (
        simulate(requests, ConstantCostModel(1.0), pipeline_parallel_size=n, **settings)
        for n in (1, 4)
    )
    # The first request runs from the first step on; the prompts behind it share its budget.
    assert alone.records[0].finish_s == 50
    assert max(alone.steps.scheduled_tokens[5:-5]) == 4
    # Four batches of one request each, a quarter of a step apart.
    assert piped.duration_s == pytest.approx(0.75 + 50)
    assert set(piped.steps.scheduled_tokens[4:]) == {1}


def test_asynchronous_scheduling_of_a_pipeline_is_refused_with_the_reason() -> None:
    message = r"pipeline_parallel_size=2 is not modelled: vLLM .* set scheduler\.async_scheduling"
    with pytest.raises(ConfigError, match=message):
        make_simulation([], scheduler={"async_scheduling": True}, pipeline_parallel_size=2)
    with pytest.raises(ConfigError, match="pipeline_parallel_size=0"):
        make_simulation([], pipeline_parallel_size=0)


@pytest.mark.parametrize("num_stages", [2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(
    "more", [{}, {"num_blocks": 40}, {"scheduler": {"max_num_batched_tokens": 48}}]
)
def test_a_pipeline_that_speculates_conserves_tokens(
    num_stages: int, alpha: float, more: dict[str, Any]
) -> None:
    requests = random_requests(seed=11, count=60, rate=80.0)
    more = more | {"scheduler": {"num_speculative_tokens": 3} | more.get("scheduler", {})}
    simulation = make_simulation(
        requests,
        pipeline_parallel_size=num_stages,
        cluster=ClusterConfig(acceptance_rate=alpha),
        **more,
    )
    result = simulation.run()
    by_id = {request.request_id: request for request in requests}
    assert len(result.records) == len(requests)
    for record in result.records:
        assert record.finish_reason == "length"
        assert record.output_tokens == by_id[record.request_id].num_output_tokens
        assert len(record.token_times_s) == record.output_tokens
        assert (np.diff(record.token_times_s) >= 0).all()
    # every token that left was computed, and every rejected draft was computed for nothing
    computed = sum(result.steps.scheduled_tokens)
    needed = sum(r.prompt_tokens + r.output_tokens - 1 - r.cached_tokens for r in result.records)
    assert computed >= needed - result.counters["prefix_hit_tokens"]
    if alpha == 0.0 and not result.counters["preemptions"]:
        assert computed > needed
    scheduler = simulation.replicas[0].core.scheduler
    scheduler.check_integrity()
    assert not scheduler.has_requests
    assert scheduler.kv_cache_manager.num_used_blocks == 0
