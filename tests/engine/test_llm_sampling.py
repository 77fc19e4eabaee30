"""LLM and how its answers are drawn: seeds, penalties, min_tokens, log probabilities."""

from typing import Any

import numpy as np
import pytest
import torch

from engine import LLM, RequestOutput, SamplingParams
from tests.engine.checkpoints import make_config, make_model
from tests.engine.small_llm import SMALL, load, quiet, tokens

SETTINGS: list[dict[str, Any]] = [
    {"max_num_batched_tokens": 16},
    {"enable_prefix_caching": False, "block_size": 32},
    {"num_gpu_blocks_override": 32, "max_model_len": 128, "scheduler_reserve_full_isl": False},
    {"async_scheduling": True},
    {"max_num_seqs": 2},
    {"num_speculative_tokens": 3, "prompt_lookup_min": 1},
    {"num_speculative_tokens": 2, "prompt_lookup_min": 1, "async_scheduling": True},
]
WISHES: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.9},
    {"temperature": 1.2, "min_p": 0.05, "repetition_penalty": 1.3},
    {"presence_penalty": 0.8, "frequency_penalty": 0.4, "bad_words_token_ids": [[7], [65, 66]]},
    {"temperature": 0.0, "repetition_penalty": 1.5, "min_tokens": 4, "logit_bias": {70: 3.0}},
    {"allowed_token_ids": list(range(40, 90)), "n": 3, "logprobs": 2},
]


def ask(llm: LLM) -> list[RequestOutput]:
    """One request of each kind, all with seeds."""
    params = [
        SamplingParams(max_tokens=24, ignore_eos=True, seed=50 + i, **wish)
        for i, wish in enumerate(WISHES)
    ]
    prompts = [list(range(10 * i, 10 * i + 30)) for i in range(len(params))]
    return llm.generate(prompts, params, **quiet)


@pytest.mark.parametrize("settings", SETTINGS, ids="+".join)
def test_seeded_answers_depend_on_no_setting_of_the_engine(
    folder: str, llm: LLM, settings: dict[str, Any]
) -> None:
    expected = ask(llm)
    other = load(folder, seed=9, **settings)
    given = ask(other)
    assert tokens(given) == tokens(expected)
    if "scheduler_reserve_full_isl" in settings:
        assert other.llm_engine.core.scheduler.num_preemptions > 0
    told, before = given[-1].outputs[0].logprobs, expected[-1].outputs[0].logprobs
    assert told is not None
    assert before is not None
    for position, same in zip(told, before, strict=True):
        assert list(position) == list(same)


def test_seeded_answers_depend_on_no_batch_mate(llm: LLM) -> None:
    crowd = ask(llm)
    for i, wish in enumerate(WISHES):
        params = SamplingParams(max_tokens=24, ignore_eos=True, seed=50 + i, **wish)
        alone = llm.generate([list(range(10 * i, 10 * i + 30))], params, **quiet)
        assert tokens(alone) == tokens(crowd[i : i + 1])
    assert len(set(map(tuple, tokens(crowd)))) == len(tokens(crowd))


def test_answers_without_a_seed_differ_by_request_and_engine_seed(folder: str) -> None:
    params = SamplingParams(max_tokens=12, ignore_eos=True)
    first = tokens(load(folder, seed=1).generate(["same"] * 3, params, **quiet))
    assert tokens(load(folder, seed=1).generate(["same"] * 3, params, **quiet)) == first
    assert tokens(load(folder, seed=2).generate(["same"] * 3, params, **quiet)) != first
    assert len(set(map(tuple, first))) == 3


def test_n_answers_share_the_prompts_blocks(llm: LLM) -> None:
    manager = llm.llm_engine.core.scheduler.kv_cache_manager
    prompt = np.random.default_rng(8).integers(0, 255, 65).tolist()
    llm.llm_engine.add_request("ask", prompt, SamplingParams(n=4, max_tokens=8, ignore_eos=True))
    llm.llm_engine.step()
    running = llm.llm_engine.core.scheduler.running
    assert len(running) == 4
    shared = [set(request.block_ids[0][:8]) for request in running]
    assert shared == [shared[0]] * 4
    llm.llm_engine.abort_request("ask")
    manager.check_integrity([])


@pytest.mark.parametrize("penalty", [1.4, 0.8])
def test_repetition_penalty_equals_transformers(folder: str, llm: LLM, penalty: float) -> None:
    model = make_model(make_config("llama", **SMALL))
    params = SamplingParams(
        temperature=0, max_tokens=20, ignore_eos=True, repetition_penalty=penalty
    )
    prompt = list(range(60, 80))
    expected = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=20,
        do_sample=False,
        repetition_penalty=penalty,
        eos_token_id=None,
        pad_token_id=258,
    )[0, len(prompt) :].tolist()
    assert tokens(llm.generate([prompt], params, **quiet)) == [expected]


def test_min_tokens_holds_the_end_back(llm: LLM) -> None:
    held = SamplingParams(temperature=0, min_tokens=9, max_tokens=20, logit_bias={257: 100})
    (output,) = llm.generate("x", held, **quiet)
    assert len(output.outputs[0].token_ids) == 10
    assert output.outputs[0].token_ids[-1] == 257
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", None)


def test_logprobs_are_the_models(folder: str, llm: LLM) -> None:
    model = make_model(make_config("llama", **SMALL))
    prompt = list(range(30, 60))
    params = SamplingParams(temperature=1.7, seed=1, max_tokens=5, logprobs=3, prompt_logprobs=2)
    (output,) = llm.generate([prompt], params, **quiet)
    (answer,) = output.outputs
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer.token_ids])).logits[0]
    exact = logits.log_softmax(-1)
    told = [*(output.prompt_logprobs or []), *(answer.logprobs or [])]
    assert told[0] is None
    assert len(told) == len(prompt) + len(answer.token_ids)
    everything = prompt + answer.token_ids
    for place in range(1, len(told)):
        position = told[place]
        assert position is not None
        assert next(iter(position)) == everything[place]
        for token_id, each in position.items():
            assert each.logprob == pytest.approx(exact[place - 1, token_id].item(), abs=1e-3)
            assert each.decoded_token == llm.get_tokenizer().decode([token_id])
    own = [exact[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer.token_ids)]
    assert answer.cumulative_logprob == pytest.approx(sum(own), abs=1e-2)
