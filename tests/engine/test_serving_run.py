"""A workload on the real engine: decisions as in the simulator, tokens, follow-ups, refusals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from engine.errors import InputError
from engine.serving_run import ServingRun
from simulator.cost_models.linear import ConstantCostModel
from simulator.simulation import Policies, Simulation
from tests.engine.checkpoints import ARCHITECTURES, SIZES
from tests.engine.harness import CACHE_FIELDS, SCHEDULER_FIELDS, make_engine
from workbench.config import CacheConfig, SchedulerConfig
from workbench.metrics import RunResult
from workbench.router import RoundRobin
from workbench.workload.arrivals import ClosedLoopArrivals
from workbench.workload.base import ListWorkload, Workload, WorkloadRequest
from workbench.workload.durations import ConstantDuration
from workbench.workload.lengths import FixedLengths, UniformLengths
from workbench.workload.sharing import MultiTurn
from workbench.workload.synthetic import SyntheticWorkload

MODEL = {"model_type": "llama", **SIZES, **ARCHITECTURES["llama"], "hidden_size": 32}
SETTINGS = {
    "max_num_seqs": 6,
    "max_num_batched_tokens": 64,
    "max_model_len": 256,
    "num_gpu_blocks_override": 80,
}
DECISIONS = (
    "scheduled_tokens",
    "prefill_tokens",
    "decode_tokens",
    "running",
    "waiting",
    "preempted",
    "kv_blocks_used",
)


def burst(num_requests: int = 12, **fields: Any) -> ListWorkload:
    """Requests that all come at time 0, every third with the same first blocks."""
    random = np.random.default_rng(5)
    requests = []
    for i in range(num_requests):
        num_prompt, num_output = (int(n) for n in random.integers((5, 10), (90, 50)))
        first = 0 if i % 3 == 0 else 100 * (i + 1)
        ids = tuple(range(first, first + num_prompt // 16))
        requests.append(
            WorkloadRequest(
                f"r{i}",
                0.0,
                num_prompt,
                num_output,
                hash_ids=ids,
                hash_block_size=16,
                priority=i % 2,
                **fields,
            )
        )
    return ListWorkload(requests)


def serve(workload: Workload, **settings: Any) -> RunResult:
    engine = make_engine(MODEL, load_format="dummy", dtype="float32", **{**SETTINGS, **settings})
    return ServingRun(engine, workload, seed=1).run()


def simulate(workload: Workload, num_host_blocks: int = 0, **settings: Any) -> RunResult:
    settings = {**SETTINGS, **settings}
    return Simulation(
        workload=workload,
        scheduler_config=SchedulerConfig(**_only(settings, SCHEDULER_FIELDS)),
        cache_config=CacheConfig(**_only(settings, CACHE_FIELDS)),
        num_blocks=settings["num_gpu_blocks_override"],
        num_host_blocks=num_host_blocks,
        cost_model=ConstantCostModel(0.01),
        router=RoundRobin(),
        policies=Policies(),
    ).run()


def _only(settings: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in names}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"enable_prefix_caching": False},
        {"enable_chunked_prefill": False, "max_num_batched_tokens": 256},
        {"num_gpu_blocks_override": 16},
        {"num_gpu_blocks_override": 16, "async_scheduling": True},
        {"num_gpu_blocks_override": 16, "policy": "priority"},
        {"num_gpu_blocks_override": 16, "preemption_mode": "swap", "swap_space_gib": 0.01},
    ],
    ids=["plain", "no-caching", "whole-prompts", "preempting", "async", "priority", "swap"],
)
def test_the_decisions_are_those_of_the_simulator(settings: dict[str, Any]) -> None:
    host_blocks = 400 if settings.get("preemption_mode") == "swap" else 0
    real, simulated = serve(burst(), **settings), simulate(burst(), host_blocks, **settings)
    for name in DECISIONS:
        assert getattr(real.steps, name).tolist() == getattr(simulated.steps, name).tolist(), name
    if "num_gpu_blocks_override" in settings:
        assert real.counters["preemptions"] > 0
    for name, value in real.counters.items():
        assert value == simulated.counters[name], name
    for one, other in zip(_by_id(real), _by_id(simulated), strict=True):
        assert one.output_tokens == other.output_tokens
        assert one.cached_tokens == other.cached_tokens
        assert one.finish_reason == other.finish_reason == "length"


def _by_id(result: RunResult) -> list[Any]:
    return sorted(result.records, key=lambda record: record.request_id)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_later_turn_finds_the_answers_before_it_in_the_cache(is_async: bool) -> None:
    def workload() -> Workload:
        return SyntheticWorkload(
            arrivals=ClosedLoopArrivals(2, ConstantDuration(0.0), 0.0),
            prompt_lengths=UniformLengths(10, 20),
            output_lengths=UniformLengths(5, 40),
            sharing=MultiTurn(FixedLengths(4), block_size=16),
            num_requests=8,
            seed=0,
        )

    real = serve(workload(), async_scheduling=is_async)
    simulated = simulate(workload(), async_scheduling=is_async)
    assert real.counters["prefix_hit_tokens"] == simulated.counters["prefix_hit_tokens"] > 0
    assert [r.cached_tokens for r in _by_id(real)] == [r.cached_tokens for r in _by_id(simulated)]


def test_what_can_never_run_is_told_and_the_others_are_served() -> None:
    requests = [
        WorkloadRequest("fits", 0.0, 10, 4),
        WorkloadRequest("too-long", 0.0, 300, 4),
        WorkloadRequest("late", 0.01, 3, 2),
    ]
    result = serve(ListWorkload(requests))
    reasons = {record.request_id: record.finish_reason for record in result.records}
    assert reasons == {"fits": "length", "too-long": "ignored", "late": "length"}
    (line,) = result.ignored
    assert "256" in line
    late = next(record for record in result.records if record.request_id == "late")
    assert late.first_scheduled_s >= 0.01
    assert result.duration_s >= late.finish_s


def test_real_tokens_are_used_and_those_outside_the_vocabulary_refused() -> None:
    tokens = tuple(range(40))
    twice = [
        WorkloadRequest(f"r{i}", 0.0, 40, 3, prompt_token_ids=tokens, client_id=f"c{i}")
        for i in range(2)
    ]
    result = serve(ListWorkload(twice), max_num_seqs=1)
    assert result.counters["prefix_hit_tokens"] == 32
    wrong = WorkloadRequest("r", 0.0, 2, 3, prompt_token_ids=(5, 320))
    with pytest.raises(InputError, match="token id 320, and the model's vocabulary ends at 319"):
        serve(ListWorkload([wrong]))


def test_speculation_gives_every_request_its_length() -> None:
    result = serve(burst(6), num_speculative_tokens=3)
    wanted = {item.request_id: item.num_output_tokens for item in burst(6).initial()}
    assert {r.request_id: r.output_tokens for r in result.records} == wanted


def test_logits_that_are_no_numbers_end_their_request_and_no_other() -> None:
    engine = make_engine(MODEL, load_format="dummy", dtype="float32", **SETTINGS)
    engine.model.embedding.weight[7] = float("nan")
    prompts: Sequence[tuple[int, ...]] = ((1, 2, 3), (4, 7, 5))
    requests = [
        WorkloadRequest(f"r{i}", 0.0, 3, 4, prompt_token_ids=prompt)
        for i, prompt in enumerate(prompts)
    ]
    result = ServingRun(engine, ListWorkload(requests)).run()
    good, bad = _by_id(result)
    assert (good.finish_reason, bad.finish_reason) == ("length", "error")
    assert "not a number" in bad.finish_detail


def test_progress_is_told_after_every_step() -> None:
    engine = make_engine(MODEL, load_format="dummy", dtype="float32", **SETTINGS)
    told: list[tuple[int, int, float]] = []
    result = ServingRun(engine, burst(3)).run(lambda *now: told.append(now))
    assert len(told) >= len(result.steps)
    assert told[-1][:2] == (3, 3)
