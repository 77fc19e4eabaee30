"""What a step reports beside tokens: failures, log probabilities, seeds that ignore the company."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from engine.build import EngineParts, Policies
from engine.prompt_logprobs import gather_in_parts
from tests.engine.harness import generate, make_engine, make_request, run_requests
from tests.engine.tiny import NUM_TOKENS, tiny
from workbench.request import RequestStatus
from workbench.sampling_params import SamplingParams
from workbench.scheduler.preemption import LowestPriority

POISON = 255
TIGHT = {
    "max_model_len": 128,
    "block_size": 8,
    "num_gpu_blocks_override": 20,
    "scheduler_reserve_full_isl": False,
    "max_num_batched_tokens": 64,
}


def poisoned(**settings: Any) -> EngineParts:
    """An engine whose model answers NaN from the token POISON on."""
    engine = make_engine(tiny("llama").folder, **settings)
    engine.model.embedding.weight.data[POISON] = float("nan")
    return engine


@pytest.mark.parametrize(
    ("backend", "pipelined", "drafts"),
    [
        ("torch", False, 0),
        ("torch", True, 0),
        ("torch", False, 2),
        ("torch", True, 2),
        ("reference", False, 0),
    ],
)
def test_nan_ends_its_request_and_no_other(backend: str, pipelined: bool, drafts: int) -> None:
    model = tiny("llama")
    engine = poisoned(
        attention_backend=backend,
        async_scheduling=pipelined,
        num_speculative_tokens=drafts,
        **TIGHT,
    )
    clean = [i for i, p in enumerate(model.prompts) if POISON not in p + model.answers[i]]
    prompts = [model.prompts[i] for i in clean]
    # (a NaN reaches every token of its chunk, so these share no block with the others)
    bad = [[7, POISON, 9], [POISON, *prompts[4]], [POISON] * 60]
    # the same few blocks are used again and again: what NaN leaves behind must not be met
    run = generate(engine, [*bad, *prompts, *prompts], NUM_TOKENS)
    assert run.token_ids[len(bad) :] == [model.answers[i] for i in clean] * 2
    for request in run.requests[: len(bad)]:
        assert request.status is RequestStatus.FINISHED_ERROR
        assert "not a number" in str(request.stop_reason)


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_seeded_request_draws_the_same_in_any_company(pipelined: bool) -> None:
    model = tiny("llama")
    params = SamplingParams(temperature=1.0, top_k=40, seed=11, max_tokens=NUM_TOKENS)
    alone = generate(make_engine(model.folder), [model.prompts[5]], NUM_TOKENS, params)
    engine = make_engine(model.folder, async_scheduling=pipelined, **TIGHT)
    run = generate(engine, model.prompts, NUM_TOKENS, params)
    assert run.num_preemptions
    assert run.token_ids[5] == alone.token_ids[0]


@pytest.mark.parametrize(("budget", "pipelined"), [(2048, False), (16, False), (40, True)])
def test_prompt_logprobs_cover_the_prompt(budget: int, pipelined: bool) -> None:
    model = tiny("llama")
    engine = make_engine(model.folder, max_num_batched_tokens=budget, async_scheduling=pipelined)
    asking = SamplingParams(temperature=0.0, max_tokens=4, prompt_logprobs=1, logprobs=2)
    plain = SamplingParams(temperature=0.0, max_tokens=4)
    prompt = model.prompts[7]
    requests = [
        make_request(engine, "plain", model.prompts[6], plain),
        make_request(engine, "asks", prompt, asking),
    ]
    run = run_requests(engine, requests)
    parts = [o.prompt_logprobs["asks"] for o in run.model_outputs if "asks" in o.prompt_logprobs]
    assert [part.start for part in parts] == [
        1 + sum(len(p.tokens) for p in parts[:i]) for i in range(len(parts))
    ]
    told = [entry for part in parts for entry in part.tokens]
    assert [entry.token_ids[0] for entry in told] == prompt[1:]
    with torch.inference_mode():
        expected = model.model(torch.tensor([prompt])).logits[0].log_softmax(-1)
    wanted = expected[range(len(prompt) - 1), prompt[1:]]
    np.testing.assert_allclose([entry.logprobs[0] for entry in told], wanted, atol=1e-4)
    answers = [entry for o in run.model_outputs for entry in o.logprobs.get("asks", ())]
    assert [entry.token_ids[0] for entry in answers] == model.answers[7][:4]
    assert all(entry.rank == 1 and len(entry.logprobs) == 3 for entry in answers)
    assert not any("plain" in o.logprobs or "plain" in o.prompt_logprobs for o in run.model_outputs)


def test_prompt_logprobs_need_the_logits_of_a_few_positions_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, hidden = (torch.randn(n, 8, generator=generator) for n in (50, 23))
    next_ids = torch.arange(23)
    sizes = []

    def compute_logits(rows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        return rows @ weight.T

    parts = gather_in_parts(compute_logits, hidden, next_ids, 3, most_positions=10)
    assert sizes == [10, 10, 3]
    whole = gather_in_parts(compute_logits, hidden, next_ids, 3)
    assert sizes[3:] == [23]
    assert parts.token_ids.equal(whole.token_ids)
    torch.testing.assert_close(parts.logprobs, whole.logprobs)
    assert parts.ranks.equal(whole.ranks)
    assert list(parts.by_row) == list(whole.by_row) == list(range(23))


def test_a_request_thrown_out_in_its_own_step_finds_no_block_it_never_computed() -> None:
    model = tiny("llama")
    engine = make_engine(
        model.folder,
        Policies(victim_policy=LowestPriority()),
        max_model_len=120,
        block_size=8,
        num_gpu_blocks_override=15,
        max_num_batched_tokens=32,
        long_prefill_token_threshold=24,
        scheduler_reserve_full_isl=False,
    )
    # In the fourth step "low" gets three blocks, "high" finds none, and "low" must go.
    low = make_request(engine, "low", model.prompts[9], params(NUM_TOKENS), priority=1)
    high = make_request(engine, "high", model.prompts[5], params(6))
    run = run_requests(engine, [low, high])
    assert low.num_preemptions == 1
    assert run.token_ids == [model.answers[9], model.answers[5][:6]]


def params(max_tokens: int) -> SamplingParams:
    """Greedy."""
    return dataclasses.replace(SamplingParams(temperature=0.0), max_tokens=max_tokens)
