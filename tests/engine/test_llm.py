"""LLM on a tiny checkpoint: prompts in every form, real sampling, chat, bad input."""

import io
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import engine
from engine import LLM, RequestOutput, SamplingParams
from engine.errors import EngineDeadError, InputError
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
    alone: Any = messages[0]
    with pytest.raises(InputError, match="must be a list of dicts with role and content"):
        llm.chat(alone)


def reason(output: RequestOutput) -> str:
    """Why a request was refused."""
    (answer,) = output.outputs
    assert output.finished
    assert (answer.text, answer.token_ids, answer.finish_reason) == ("", [], "error")
    return str(answer.stop_reason)


def test_bad_prompts_and_parameters_keep_nobody_from_an_answer(llm: LLM) -> None:
    (alone,) = tokens(llm.generate("good", GREEDY, **quiet))
    long_word = GREEDY.clone(bad_words=["x" * 70])
    wide = GREEDY.clone(stop_token_ids=[320])
    prompts: list[Any] = ["good", [], "x" * 256, [1, 320], 7, "\ud800", "good", "good", "good"]
    params = [GREEDY] * 6 + [long_word, wide, GREEDY]
    outputs = llm.generate(prompts, params, **quiet)
    first = int(outputs[0].request_id)
    assert [int(output.request_id) for output in outputs] == [*range(first, first + 9)]
    assert tokens([outputs[0], outputs[-1]]) == [alone, alone]
    assert outputs[2].prompt == "x" * 256
    messages = [
        "the prompt is empty: it must have at least 1 token",
        "the prompt has 256 tokens and max_model_len=256",
        "the prompt has the token id 320, outside",
        "a prompt of type int is not understood",
        "the prompt holds '\\ud800'",
        "a bad word has 70 tokens, and at most 64 are compared: shorten it",
        "stop_token_ids holds the token id 320",
    ]
    for output, message in zip(outputs[1:-1], messages, strict=True):
        assert reason(output).startswith(message)
    assert tokens(llm.generate("good", GREEDY, **quiet)) == [alone]


def test_a_call_of_bad_prompts_only_is_refused(llm: LLM) -> None:
    with pytest.raises(InputError, match=r"^the prompt has the token id 320, outside"):
        llm.generate([1, 320], GREEDY, **quiet)
    with pytest.raises(ValueError, match=r"^prompt 0 of 2: the prompt is empty"):
        llm.generate([[], [320]], GREEDY, **quiet)


def test_arguments_of_a_wrong_kind_are_refused_before_any_prompt_runs(llm: LLM) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"sampling_params": [GREEDY]}, "sampling_params has 1 entries for 2 prompts"),
        ({"sampling_params": [GREEDY, "hot"]}, "prompt 1 of 2: sampling_params='hot' must be"),
        ({"priority": [1, "x"]}, "prompt 1 of 2: priority='x' must be a whole number"),
        ({"lora_request": "adapter"}, "lora_request='adapter' is not possible: adapters are"),
    ]
    for arguments, message in wrong:
        with pytest.raises(InputError, match=message):
            llm.generate(["a", "b"], **arguments, **quiet)
    assert llm.llm_engine.num_unfinished_requests == 0


def test_nothing_left_to_choose_is_told_as_that(llm: LLM) -> None:
    only_eos = GREEDY.clone(allowed_token_ids=[257], min_tokens=2, ignore_eos=False)
    nothing = SamplingParams(allowed_token_ids=[70], bad_words_token_ids=[[70]])
    outputs = llm.generate(["a", "b", "c"], [only_eos, nothing, GREEDY], **quiet)
    for output in outputs[:2]:
        assert reason(output).startswith("nothing is left to choose: allowed_token_ids, bad words")
    assert len(outputs[2].outputs[0].token_ids) == 6


@pytest.mark.parametrize("settings", [{"async_scheduling": True}, {"num_speculative_tokens": 2}])
def test_nothing_left_to_choose_is_told_on_every_way(folder: str, settings: dict[str, Any]) -> None:
    nothing = SamplingParams(allowed_token_ids=[70], bad_words_token_ids=[[70]])
    empty, fine = load(folder, **settings).generate(["a", "b"], [nothing, GREEDY], **quiet)
    assert reason(empty).startswith("nothing is left to choose")
    assert len(fine.outputs[0].token_ids) == 6


def test_content_in_parts_is_joined_and_a_bad_conversation_ends_alone(llm: LLM) -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "you"}]
    image = [{"type": "image_url", "image_url": {"url": "x"}}]
    good, bad = ([{"role": "user", "content": content}] for content in (parts, image))
    one, other = llm.chat([good, bad], GREEDY, use_tqdm=False)
    assert one.prompt == "<|bos|><|user|>Hi\nyou<|eos|><|assistant|>"
    assert reason(other).startswith("a part of type 'image_url' in a message's content is not")
    with pytest.raises(InputError, match="a part of type 'image_url'"):
        llm.chat(bad, GREEDY, use_tqdm=False)


def test_the_prefix_cache_can_be_reset(folder: str) -> None:
    llm = load(folder)
    prompt = list(range(40))
    assert llm.generate([prompt], GREEDY, **quiet)[0].num_cached_tokens == 0
    (again,) = llm.generate([prompt], GREEDY, **quiet)
    assert again.num_cached_tokens
    assert again.lora_request is None
    assert llm.reset_prefix_cache()
    assert llm.generate([prompt], GREEDY, **quiet)[0].num_cached_tokens == 0
    llm.llm_engine.add_request("r", prompt, GREEDY)
    llm.llm_engine.step()
    assert not llm.reset_prefix_cache()
    llm.llm_engine.abort_request("r")


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


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler, also where tests run in the background, which ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_ctrl_c_ends_the_call_and_the_next_one_works(is_async: bool) -> None:
    presses = iter([3])

    def script(request: Any, count: int) -> int:
        if count == 3 and next(presses, None):
            os.kill(os.getpid(), signal.SIGINT)
        return 65

    handler = signal.getsignal(signal.SIGINT)
    llm = LLM.from_engine(scripted_engine(script, is_async=is_async))
    with pytest.raises(KeyboardInterrupt):
        llm.generate([[1], [2]], **quiet)
    assert signal.getsignal(signal.SIGINT) is handler
    assert llm.llm_engine.num_unfinished_requests == 0
    assert llm.llm_engine.core.scheduler.num_unfinished_requests == 0
    assert [len(each) for each in tokens(llm.generate([[1], [2]], **quiet))] == [16, 16]
    llm.llm_engine.core.scheduler.kv_cache_manager.check_integrity([])


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_ctrl_c_leaves_a_real_model_in_step_with_its_scheduler(
    folder: str, llm: LLM, is_async: bool
) -> None:
    interrupted = load(folder, async_scheduling=is_async)
    runner = interrupted.llm_engine.core.executor.runner  # type: ignore[attr-defined]
    execute, presses = runner.execute_model, iter([False, False, True])

    def execute_and_press(output: Any) -> None:
        execute(output)
        if next(presses, False):
            os.kill(os.getpid(), signal.SIGINT)

    runner.execute_model = execute_and_press
    prompts = [list(range(i, i + 20)) for i in range(5)]
    with pytest.raises(KeyboardInterrupt):
        interrupted.generate(prompts, GREEDY.clone(max_tokens=40), **quiet)
    assert tokens(interrupted.generate(prompts, GREEDY, **quiet)) == tokens(
        llm.generate(prompts, GREEDY, **quiet)
    )
    runner.input_batch.check_integrity()


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_does_not_wait() -> None:
    def script(request: Any, count: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    llm = LLM.from_engine(scripted_engine(script))
    with pytest.raises(KeyboardInterrupt):
        llm.generate([[1]], **quiet)
    with pytest.raises(EngineDeadError, match=r"a step broke off, KeyboardInterrupt\)"):
        llm.generate([[1]], **quiet)


def test_an_engine_whose_step_broke_off_says_so() -> None:
    def broken(request: Any, count: int) -> int:
        if count == 3:
            raise RuntimeError("no device\nand more")
        return 65

    llm = LLM.from_engine(scripted_engine(broken))
    with pytest.raises(RuntimeError, match="no device") as first:
        llm.generate([[1], [2]], **quiet)
    assert llm.llm_engine.num_unfinished_requests == 0
    assert llm.llm_engine.core.scheduler.num_unfinished_requests == 0
    message = r"cannot go on \(a step broke off, RuntimeError: no device\): make a new one"
    with pytest.raises(EngineDeadError, match=message) as caught:
        llm.generate([[1]], **quiet)
    assert caught.value.__cause__ is first.value
    with pytest.raises(EngineDeadError, match=message):
        llm.llm_engine.step()


def test_an_engine_can_be_shut_down(folder: str) -> None:
    llm = load(folder, async_scheduling=True)
    assert len(llm.generate([[1]], GREEDY, **quiet)) == 1
    llm.llm_engine.shutdown()
    with pytest.raises(EngineDeadError, match=r"cannot go on \(it was shut down\)"):
        llm.generate([[1]], GREEDY, **quiet)


def test_defaults_come_from_the_model() -> None:
    llm = LLM.from_engine(scripted_engine(spell("x" * 99)))
    assert llm.get_default_sampling_params() == SamplingParams()
    assert len(llm.generate("p", **quiet)[0].outputs[0].token_ids) == 16
