"""Greedy tokens of the engine beside transformers', whatever the scheduler does to the requests."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from engine.build import Policies
from tests.engine.harness import generate, make_engine, make_request, run_requests
from tests.engine.tiny import MODELS, NUM_TOKENS, tiny
from workbench.sampling_params import SamplingParams
from workbench.scheduler.batch_policy import (
    BatchPolicy,
    PrefillFirstBatching,
    SarathiBatching,
    StaticBatching,
)

GREEDY = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS)
# room for one request of 128 tokens and not much more
TIGHT = {"max_model_len": 128, "block_size": 8, "num_gpu_blocks_override": 20}


def check(name: str, policies: Policies | None = None, arrive_every: int = 0, **settings: Any):
    """Run all prompts of a tiny model; every token must be transformers'."""
    model = tiny(name)
    engine = make_engine(model.folder, policies, **settings)
    run = generate(engine, model.prompts, NUM_TOKENS, arrive_every=arrive_every)
    assert run.token_ids == model.answers
    return run


BUDGETS = [16, 48, 2048]
GRID = [
    (budget, block_size, caching, pipelined)
    for i, (budget, block_size, caching, pipelined) in enumerate(
        product(BUDGETS, (8, 16, 32), (True, False), (False, True))
    )
    if i % 3 == 0 or budget == 16
]


@pytest.mark.parametrize(("budget", "block_size", "caching", "pipelined"), GRID)
def test_budgets_block_sizes_caching_and_async(
    budget: int, block_size: int, caching: bool, pipelined: bool
) -> None:
    run = check(
        "llama",
        arrive_every=2,
        max_num_batched_tokens=budget,
        block_size=block_size,
        enable_prefix_caching=caching,
        async_scheduling=pipelined,
    )
    assert any(r.num_cached_tokens for r in run.requests) == caching


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "llama"])
def test_architectures(name: str, pipelined: bool) -> None:
    check(name, arrive_every=1, max_num_batched_tokens=40, async_scheduling=pipelined)


@pytest.mark.parametrize("pipelined", [False, True])
def test_whole_prompts(pipelined: bool) -> None:
    check(
        "llama",
        enable_chunked_prefill=False,
        max_model_len=128,
        max_num_batched_tokens=128,
        async_scheduling=pipelined,
    )


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("mode", ["recompute", "swap"])
@pytest.mark.parametrize("name", ["llama", "mistral", "hybrid"])
def test_preemption(name: str, mode: str, pipelined: bool) -> None:
    blocks = 40 if name == "hybrid" and mode == "recompute" else 20
    run = check(
        name,
        **TIGHT | {"num_gpu_blocks_override": blocks},
        preemption_mode=mode,
        swap_space_gib=0.005,
        scheduler_reserve_full_isl=False,
        max_num_batched_tokens=64,
        async_scheduling=pipelined,
    )
    assert run.num_preemptions > 0


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("name", ["llama", "hybrid"])
def test_backends(name: str, backend: str) -> None:
    check(name, attention_backend=backend, max_num_batched_tokens=64, arrive_every=1)


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("policy", [PrefillFirstBatching(), SarathiBatching(48), StaticBatching()])
def test_batch_policies(policy: BatchPolicy, pipelined: bool) -> None:
    check(
        "llama",
        Policies(batch_policy=policy),
        max_model_len=128,
        max_num_batched_tokens=160,
        arrive_every=1,
        async_scheduling=pipelined,
    )


@pytest.mark.parametrize("seed", range(8))
def test_random_settings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drafts = int(rng.choice([0, 0, 3]))
    run = check(
        str(rng.choice(["llama", "mistral", "hybrid"])),
        arrive_every=int(rng.integers(0, 3)),
        max_model_len=128,
        max_num_seqs=int(rng.integers(2, 12)),
        block_size=int(rng.choice([4, 8, 16])),
        num_gpu_blocks_override=int(rng.integers(70, 90)),
        max_num_batched_tokens=int(rng.integers(16, 90)),
        long_prefill_token_threshold=int(rng.choice([0, 20])),
        enable_prefix_caching=bool(rng.integers(2)),
        async_scheduling=bool(rng.integers(2)),
        num_speculative_tokens=drafts,
    )
    assert run.num_steps > 0


def test_batch_mates_do_not_matter_and_ids_come_in_batch_order() -> None:
    model = tiny("llama")
    engine = make_engine(model.folder, max_num_seqs=3, max_num_batched_tokens=32)
    order = [7, 0, 9, 3, 12, 5, 1]
    run = generate(engine, [model.prompts[i] for i in order], NUM_TOKENS)
    assert run.token_ids == [model.answers[i] for i in order]


@pytest.mark.parametrize("pipelined", [False, True])
def test_ends_aborts_and_new_requests_share_slots(pipelined: bool) -> None:
    model = tiny("llama")
    engine = make_engine(model.folder, max_num_seqs=2, async_scheduling=pipelined)
    stop = model.answers[4][5]
    params = [
        SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, stop_token_ids=(stop,)),
        SamplingParams(temperature=0.0, max_tokens=3),
        GREEDY,
        GREEDY,
    ]
    requests = [
        make_request(engine, f"r{i}", model.prompts[4 + i], own) for i, own in enumerate(params)
    ]
    gone = make_request(engine, "gone", model.prompts[9], GREEDY)
    engine.core.add_request(gone)
    run = run_requests(engine, requests[:0])
    assert gone.num_output_tokens == NUM_TOKENS
    engine = make_engine(model.folder, max_num_seqs=2, async_scheduling=pipelined)
    gone = make_request(engine, "gone", model.prompts[9], GREEDY)
    engine.core.add_request(gone)
    next(iter(engine.core.abort_requests(["gone"])))
    run = run_requests(engine, requests)
    expected = [model.answers[4][: model.answers[4].index(stop) + 1], model.answers[5][:3]]
    assert run.token_ids == [*expected, *model.answers[6:8]]


def test_an_empty_step_is_fine() -> None:
    engine = make_engine(tiny("llama").folder)
    step = engine.core.step()
    assert next(step).result().sampled_token_ids == []
