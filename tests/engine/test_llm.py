"""LLM on a tiny checkpoint: prompts in every form, chat, checkpoints, progress."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine import LLM, SamplingParams
from engine.errors import InputError
from tests.engine.checkpoints import make_checkpoint, make_config
from tests.engine.scripted_core import by_prompt, scripted_engine, spell
from tests.engine.small_llm import GREEDY, SMALL, load, quiet, tokens


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


def test_defaults_come_from_the_model() -> None:
    llm = LLM.from_engine(scripted_engine(spell("x" * 99)))
    assert llm.get_default_sampling_params() == SamplingParams()
    assert len(llm.generate("p", **quiet)[0].outputs[0].token_ids) == 16
