"""LLM and what cannot be served: it is told, and keeps nobody from an answer."""

from typing import Any

import pytest
import torch

from engine import LLM, RequestOutput, SamplingParams
from engine.errors import InputError
from tests.engine.small_llm import GREEDY, load, quiet, tokens
from workbench.errors import ConfigError


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
