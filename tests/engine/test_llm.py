"""LLM on a tiny checkpoint: prompts in every form, real sampling, chat, bad input."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import engine
from engine import LLM, RequestOutput, SamplingParams
from engine.errors import InputError
from tests.engine.checkpoints import make_checkpoint, make_config, make_model
from tests.engine.scripted_core import by_prompt, scripted_engine, spell
from workbench.errors import ConfigError

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
SMALL = {"num_hidden_layers": 2, "max_position_embeddings": 256}
quiet = {"use_tqdm": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_checkpoint(tmp_path_factory.mktemp("llama"), **SMALL))


def load(folder: Any, **settings: Any) -> LLM:
    small = {"max_num_seqs": 16, "num_gpu_blocks_override": 300, "block_size": 8, "device": "cpu"}
    return LLM(folder, **(small | settings))


@pytest.fixture(scope="module")
def llm(folder: str) -> LLM:
    return load(folder)


def tokens(outputs: list[RequestOutput]) -> list[list[int]]:
    return [answer.token_ids for output in outputs for answer in output.outputs]


def test_the_package_offers_its_names_lazily() -> None:
    assert engine.LLM is LLM
    assert set(engine.__all__) <= set(dir(engine))
    for name in engine.__all__:
        assert getattr(engine, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'LLMs'"):
        _ = engine.LLMs  # type: ignore[attr-defined]


def test_prompts_in_every_form_give_the_same_answer(llm: LLM) -> None:
    ids = list(b"hello")
    forms: list[Any] = [
        "hello",
        ["hello"],
        ids,
        [ids],
        np.array(ids),
        {"prompt": "hello"},
        {"prompt_token_ids": ids},
        [{"prompt_token_ids": ids}],
    ]
    answers = [llm.generate(form, GREEDY, **quiet) for form in forms]
    assert all(len(outputs) == 1 for outputs in answers)
    assert all(tokens(outputs) == tokens(answers[0]) for outputs in answers)
    assert all(outputs[0].prompt_token_ids == ids for outputs in answers)
    assert answers[0][0].prompt == "hello"
    assert answers[2][0].prompt is None


def test_the_text_is_what_the_tokenizer_makes_of_the_tokens(llm: LLM) -> None:
    outputs = llm.generate(["a", "b", "c"], SamplingParams(max_tokens=40, seed=3), **quiet)
    for output in outputs:
        (answer,) = output.outputs
        shown = answer.token_ids[:-1] if answer.finish_reason == "stop" else answer.token_ids
        assert answer.text == llm.get_tokenizer().decode(shown, skip_special_tokens=True)


def test_outputs_come_in_the_order_of_the_prompts(llm: LLM) -> None:
    prompts = [f"prompt {i}" for i in range(20)]
    params = [SamplingParams(temperature=0, max_tokens=1 + (7 * i) % 11) for i in range(20)]
    outputs = llm.generate(prompts, params, **quiet)
    assert [output.prompt for output in outputs] == prompts
    assert all(
        len(output.outputs[0].token_ids) <= each.max_tokens  # type: ignore[operator]
        for output, each in zip(outputs, params, strict=True)
    )
    ids = [int(output.request_id) for output in outputs]
    assert ids == list(range(ids[0], ids[0] + 20))


def test_nothing_asked_is_nothing_answered(llm: LLM) -> None:
    assert llm.generate([], **quiet) == []


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


def test_chat_renders_the_template(llm: LLM) -> None:
    messages = [{"role": "user", "content": "hi"}]
    one = llm.chat(messages, GREEDY, use_tqdm=False)
    assert one[0].prompt == "<|bos|><|user|>hi<|eos|><|assistant|>"
    assert one[0].prompt_token_ids == [256, 259, *b"hi", 257, 260]
    two = llm.chat([messages, messages], GREEDY, use_tqdm=False)
    assert tokens(two) == tokens(one) * 2
    with pytest.raises(InputError, match="messages is empty"):
        llm.chat([])


def test_one_bad_prompt_is_told_with_its_index_before_any_runs(llm: LLM) -> None:
    executor: Any = llm.llm_engine.core.executor
    runs: list[Any] = []
    original = executor.execute_model
    executor.execute_model = lambda output: (runs.append(output), original(output))
    with pytest.raises(InputError, match=r"^prompt 1 of 3: the prompt is empty"):
        llm.generate(["good", [], "good"], GREEDY, **quiet)
    with pytest.raises(InputError, match=r"^prompt 2 of 3: the prompt has 256 tokens and max_mod"):
        llm.generate(["good", "good", "x" * 256], GREEDY, **quiet)
    with pytest.raises(InputError, match=r"^the prompt has the token id 320, outside"):
        llm.generate([1, 320], GREEDY, **quiet)
    with pytest.raises(InputError, match="sampling_params has 1 entries for 2 prompts"):
        llm.generate(["a", "b"], [GREEDY], **quiet)
    with pytest.raises(InputError, match="prompt 1 of 2: sampling_params='hot' must be"):
        llm.generate(["a", "b"], [GREEDY, "hot"], **quiet)  # type: ignore[list-item]
    assert not runs
    executor.execute_model = original
    assert len(llm.generate(["good", "good"], GREEDY, **quiet)) == 2


def test_a_checkpoint_without_tokenizer_serves_token_ids(tmp_path: Path) -> None:
    bare = load(str(make_checkpoint(tmp_path, has_tokenizer=False, **SMALL)))
    (output,) = bare.generate([1, 2, 3], GREEDY, **quiet)
    assert len(output.outputs[0].token_ids) == 6
    assert output.outputs[0].text == ""
    with pytest.raises(InputError, match=r"the prompt is text, and .* has no tokenizer"):
        bare.generate("text", GREEDY)
    with pytest.raises(InputError, match=r"no tokenizer: .* has no tokenizer"):
        bare.chat([{"role": "user", "content": "hi"}])


def test_a_nan_ends_its_request_and_no_other_one(folder: str) -> None:
    sick = load(folder)
    with torch.no_grad():
        sick.llm_engine.core.executor.runner.model.embedding.weight[13] = float("nan")
    well, ill, also_well = sick.generate([[1, 2], [1, 13], [3, 4]], GREEDY, **quiet)
    assert ill.outputs[0].finish_reason == "error"
    assert "not a number" in str(ill.outputs[0].stop_reason)
    assert tokens([well, also_well]) == tokens(load(folder).generate([[1, 2], [3, 4]], GREEDY))


def test_unknown_settings_are_refused_by_name(folder: str) -> None:
    with pytest.raises(ConfigError, match="unknown setting max_modle_len=5: did you mean max_mod"):
        LLM(folder, max_modle_len=5)
    with pytest.raises(ConfigError, match="trust_remote_code=True is not possible"):
        LLM(folder, trust_remote_code=True)


def test_a_model_of_random_weights_needs_no_files() -> None:
    fields = make_config("qwen3", **SMALL).to_dict()
    llm = load(fields, load_format="dummy", dtype="float32")
    assert len(tokens(llm.generate([[1, 2, 3]], GREEDY, **quiet))[0]) == 6


def test_the_progress_bar_tells_tokens_per_second(capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm import tqdm

    llm = LLM.from_engine(scripted_engine(by_prompt({65: "one", 66: "three"})))
    llm.generate([[65], [66]])
    shown = capsys.readouterr().err
    assert "Processed prompts: 100%" in shown
    assert "tok/s" in shown
    llm.generate([[65], [66]], use_tqdm=False)
    assert capsys.readouterr().err == ""
    stream = io.StringIO()
    make: Callable[..., Any] = partial(tqdm, file=stream)
    llm.generate([[65], [66]], use_tqdm=make)
    assert "2/2" in stream.getvalue()


def test_an_interrupted_call_leaves_nothing_behind_and_the_engine_says_so() -> None:
    def interrupted(request: Any, count: int) -> int:
        if count == 3:
            raise KeyboardInterrupt
        return 65

    llm = LLM.from_engine(scripted_engine(interrupted))
    with pytest.raises(KeyboardInterrupt):
        llm.generate([[1], [2]], **quiet)
    assert llm.llm_engine.num_unfinished_requests == 0
    assert llm.llm_engine.core.scheduler.num_unfinished_requests == 0
    message = r"cannot go on \(a step broke off, KeyboardInterrupt\): make a new one"
    with pytest.raises(InputError, match=message):
        llm.generate([[1]], **quiet)
    with pytest.raises(InputError, match=message):
        llm.llm_engine.step()


def test_an_engine_can_be_shut_down(folder: str) -> None:
    llm = load(folder, async_scheduling=True)
    assert len(llm.generate([[1]], GREEDY, **quiet)) == 1
    llm.llm_engine.shutdown()
    with pytest.raises(InputError, match=r"cannot go on \(it was shut down\)"):
        llm.generate([[1]], GREEDY, **quiet)


def test_defaults_come_from_the_model() -> None:
    llm = LLM.from_engine(scripted_engine(spell("x" * 99)))
    assert llm.get_default_sampling_params() == SamplingParams()
    assert len(llm.generate("p", **quiet)[0].outputs[0].token_ids) == 16
