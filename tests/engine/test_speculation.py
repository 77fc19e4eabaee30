"""Draft tokens change how many steps an answer takes, never the answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from engine.batch_inputs import Rows, flatten, logits_positions
from engine.build import EngineParts
from engine.verification import kept_tokens
from tests.engine.harness import generate, make_engine, make_request, run_requests
from tests.engine.tiny import NUM_TOKENS, tiny
from workbench.sampling_params import SamplingParams


class OracleProposer:
    """Knows the answers, and errs at every `wrong_every`-th token."""

    def __init__(self, answers: dict[tuple[int, ...], list[int]], k: int, wrong_every: int) -> None:
        self._answers = answers
        self._k = k
        self._wrong_every = wrong_every

    def propose(self, token_ids: np.ndarray) -> list[int]:
        text = tuple(token_ids.tolist())
        for prompt, answer in self._answers.items():
            if text[: len(prompt)] == prompt and len(text) > len(prompt):
                start = len(text) - len(prompt)
                drafts = answer[start : start + self._k]
                return [
                    (token + 1) % 300 if (start + i) % self._wrong_every == 0 else token
                    for i, token in enumerate(drafts)
                ]
        return []


def with_oracle(engine: EngineParts, prompts: Sequence[list[int]], wrong_every: int) -> EngineParts:
    """The same engine with a proposer that is mostly right."""
    answers = tiny("llama").answers
    known = {tuple(p): a for p, a in zip(prompts, answers, strict=True)}
    engine.runner._proposer = OracleProposer(known, 3, wrong_every)  # type: ignore[assignment]
    return engine


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("wrong_every", [100, 4])
@pytest.mark.parametrize(
    "settings",
    [
        {"max_num_batched_tokens": 64},
        {"max_num_batched_tokens": 512, "block_size": 8, "attention_backend": "reference"},
        {
            "max_num_batched_tokens": 48,
            "max_model_len": 128,
            "block_size": 8,
            "num_gpu_blocks_override": 20,
            "scheduler_reserve_full_isl": False,
        },
    ],
)
def test_accepted_drafts_change_no_token(
    settings: dict[str, Any], wrong_every: int, pipelined: bool
) -> None:
    model = tiny("llama")
    engine = make_engine(
        model.folder, num_speculative_tokens=3, async_scheduling=pipelined, **settings
    )
    run = generate(with_oracle(engine, model.prompts, wrong_every), model.prompts, NUM_TOKENS)
    assert run.token_ids == model.answers
    num_kept = [len(row) for output in run.model_outputs for row in output.sampled_token_ids or ()]
    assert max(num_kept) == 4
    assert num_kept.count(1) > 0


def test_the_ngram_proposer_serves_a_text_that_repeats_itself() -> None:
    model = tiny("llama")
    prompt = model.prompts[3] * 4
    plain = generate(make_engine(model.folder), [prompt], 24)
    engine = make_engine(model.folder, num_speculative_tokens=4, prompt_lookup_min=1)
    run = generate(engine, [prompt], 24)
    assert run.token_ids == plain.token_ids
    assert any(output.draft_token_ids.get("r0") for output in run.model_outputs)


def test_random_answers_and_logprobs_are_the_same_with_drafts() -> None:
    model = tiny("llama")
    params = SamplingParams(
        temperature=0.8,
        top_p=0.9,
        seed=5,
        max_tokens=NUM_TOKENS,
        logprobs=2,
        repetition_penalty=1.3,
    )
    runs = []
    for drafts in (0, 3):
        engine = make_engine(model.folder, num_speculative_tokens=drafts)
        if drafts:
            with_oracle(engine, model.prompts, 3)
        requests = [make_request(engine, str(i), p, params) for i, p in enumerate(model.prompts)]
        runs.append(run_requests(engine, requests))
    assert runs[0].token_ids == runs[1].token_ids
    told = [
        [entry for output in run.model_outputs for entry in output.logprobs.get("3", ())]
        for run in runs
    ]
    assert [entry.token_ids for entry in told[0]] == [entry.token_ids for entry in told[1]]
    assert [entry.token_ids[0] for entry in told[0]] == runs[0].token_ids[3]
    for one, other in zip(*told, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_logits_are_wanted_at_every_draft() -> None:
    rows = Rows.of({"a": 4, "b": 1, "c": 3}, {"a": 2, "b": 0, "c": 1})
    assert rows.slots.tolist() == [0, 2, 1]
    assert rows.order is not None
    assert rows.order.tolist() == [1, 0, 2]
    flat = flatten(rows, np.array([9, 5, 0]))
    assert flat.positions.tolist() == [9, 5, 6, 7, 8, 0, 1, 2]
    positions = logits_positions(flat.query_start_loc, np.array([0, 1]), np.array([0, 2]))
    assert positions.tolist() == [0, 2, 3, 4]
    assert kept_tokens([], 2, [4, 5]) == [-1, -1]
