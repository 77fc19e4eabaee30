"""What is refused before a model runs, and what a request becomes that is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.batch_arguments import one_for_each, split_prompts
from engine.errors import InputError
from engine.input_processor import EosTokens, InputProcessor
from engine.tokenizer import load_tokenizer
from tests.engine.checkpoints import make_tokenizer
from workbench.sampling_params import SamplingParams

VOCAB = 300
EOS = EosTokens(primary=257, others=(258,))


class Words:
    """A tokenizer of bytes that starts every text with token 256."""

    def encode(self, text: str, add_special_tokens: bool = True, **options: Any) -> list[int]:
        return [256] * add_special_tokens + list(text.encode())


def processor(tokenizer: Any = None, max_model_len: int = 32) -> InputProcessor:
    return InputProcessor(VOCAB, max_model_len, tokenizer, "there is no tokenizer here", EOS)


@pytest.mark.parametrize(
    ("prompt", "text", "token_ids"),
    [
        ("hi", "hi", [256, 104, 105]),
        ({"prompt": "hi"}, "hi", [256, 104, 105]),
        ([1, 2], None, [1, 2]),
        ((1, np.int64(2)), None, [1, 2]),
        (np.array([1, 2]), None, [1, 2]),
        ({"prompt_token_ids": [3]}, None, [3]),
        ({"prompt": "as text", "prompt_token_ids": [3]}, "as text", [3]),
        ({"prompt": None, "prompt_token_ids": [3]}, None, [3]),
    ],
)
def test_prompts_come_in_five_forms(prompt: Any, text: str | None, token_ids: list[int]) -> None:
    source = processor(Words()).process(prompt, SamplingParams())
    assert (source.prompt, source.prompt_token_ids) == (text, token_ids)
    assert all(type(token_id) is int for token_id in source.prompt_token_ids)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the prompt is empty"),
        ({"prompt_token_ids": []}, "the prompt is empty"),
        ([0] * 32, "the prompt has 32 tokens and max_model_len=32 holds 31"),
        ([1, 300], "token id 300, outside the model's vocabulary of 300"),
        ([1, -1], "token id -1, outside"),
        ([1, "a"], "holds 'a' among its token ids"),
        ([1, True], "holds True among its token ids"),
        ("text", "the prompt is text, and there is no tokenizer here: pass"),
        ({"prompt": "text"}, "there is no tokenizer here"),
        ({"prompt": 5}, "'prompt' is of type int"),
        ({}, "a prompt with the keys [] is not understood"),
        ({"prompt_ids": [1]}, "a prompt with the keys ['prompt_ids'] is not understood"),
        (7, "a prompt of type int is not understood"),
        ({"prompt_token_ids": "12"}, "a prompt of type str is not understood"),
    ],
)
def test_a_bad_prompt_is_told_in_one_line(prompt: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        processor().process(prompt, SamplingParams())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stop_token_ids": [300]}, "stop_token_ids holds the token id 300"),
        ({"logit_bias": {301: 1.0}}, "logit_bias holds the token id 301"),
        ({"allowed_token_ids": [1, 999]}, "allowed_token_ids holds the token id 999"),
        ({"bad_words_token_ids": [[1], [2, 300]]}, "bad_words_token_ids holds the token id 300"),
        ({"logprobs": 301}, "logprobs=301 exceeds the model's vocabulary of 300"),
        ({"prompt_logprobs": 999}, "prompt_logprobs=999 exceeds"),
        ({"stop": "end"}, "stop=['end'] needs text, and there is no tokenizer here"),
        ({"bad_words": ["no"]}, "bad_words=['no'] are text, and there is no tokenizer here"),
        ({"bad_words_token_ids": [[1] * 65]}, "a bad word has 65 tokens, and at most 64 are"),
    ],
)
def test_parameters_that_do_not_fit_the_model_are_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        processor().process([1], SamplingParams(**values))
    assert message in str(caught.value)


def test_a_bad_word_that_is_long_as_text_is_refused() -> None:
    with pytest.raises(InputError, match="a bad word has 70 tokens, and at most 64 are compared"):
        processor(Words()).process([1], SamplingParams(bad_words=["no", "x" * 70]))


def test_half_a_character_is_refused_by_name(tmp_path: Path) -> None:
    real = load_tokenizer(make_tokenizer(tmp_path))
    for process in (
        lambda: processor(real).process("a\ud800", SamplingParams()),
        lambda: processor(real).process({"prompt": "\ud800"}, SamplingParams()),
        lambda: processor(real).process([1], SamplingParams(bad_words=["\ud800"])),
    ):
        with pytest.raises(InputError, match=r"holds '\\ud800', half of a surrogate pair"):
            process()


def test_parameters_of_another_type_are_refused() -> None:
    params: Any = {"temperature": 0}
    with pytest.raises(InputError, match="must be a SamplingParams"):
        processor().process([1], params)


@pytest.mark.parametrize(("max_tokens", "expected"), [(None, 27), (100, 27), (27, 27), (3, 3)])
def test_an_answer_ends_with_the_context(max_tokens: int | None, expected: int) -> None:
    source = processor().process([1] * 5, SamplingParams(max_tokens=max_tokens))
    assert source.max_tokens == expected


@pytest.mark.parametrize(("limit", "expected"), [(None, None), (3, [7, 8, 9]), (-1, None)])
def test_prompts_are_truncated_from_the_left(limit: int | None, expected: list[int] | None) -> None:
    params = SamplingParams(truncate_prompt_tokens=limit)
    source = processor().process(range(10), params)
    assert source.prompt_token_ids == (expected or list(range(10)))
    if limit == -1:
        assert processor().process(list(range(40)), params).prompt_token_ids == list(range(9, 40))


def test_every_stop_token_goes_to_the_device_and_ends_the_request() -> None:
    source = processor().process([1], SamplingParams(n=3, stop_token_ids=[5], min_tokens=2))
    assert source.device_params.stop_token_ids == (5, 257, 258)
    assert source.device_params.n == 1
    assert source.stop_token_ids == {5, 257, 258}
    assert source.eos_token_id == 257


def test_ignore_eos_goes_on_but_min_tokens_still_masks() -> None:
    params = SamplingParams(stop_token_ids=[5], ignore_eos=True)
    source = processor().process([1], params)
    assert source.stop_token_ids == {5}
    assert source.eos_token_id is None
    assert source.device_params.stop_token_ids == (5, 257, 258)


def test_bad_words_are_encoded_with_and_without_a_space() -> None:
    words = {"no": [10], " no": [11], "ab": [12, 13], " ab": [14], " x": [15, 16], "x": [15]}

    class Pieces:
        def encode(self, text: str, **options: Any) -> list[int]:
            return words[text]

    params = SamplingParams(bad_words=["no", "ab", " x"], bad_words_token_ids=[[7]])
    device = processor(Pieces()).process([1], params).device_params
    assert device.bad_words_token_ids == ((7,), (10,), (11,), (12, 13), (15,))


def test_parameters_shared_by_prompts_are_resolved_once() -> None:
    each, params = processor(), SamplingParams(min_tokens=1)
    first = each.process([1], params)
    assert each.process([2], params).device_params is first.device_params
    assert each.process([2], SamplingParams(min_tokens=2)).device_params.min_tokens == 2


@pytest.mark.parametrize(
    ("prompts", "count"),
    [
        ("text", 1),
        ({"prompt": "text"}, 1),
        ([1, 2, 3], 1),
        (np.array([1, 2, 3]), 1),
        (["a", "b"], 2),
        ([[1], [2], "c"], 3),
        ([], 0),
        ([[]], 1),
        (np.array([[1, 2], [3, 4]]), 2),
    ],
)
def test_one_prompt_is_told_from_several(prompts: Any, count: int) -> None:
    assert len(split_prompts(prompts)) == count


def test_prompts_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError, match="prompts of type int are not understood"):
        split_prompts(5)  # type: ignore[arg-type]


def test_lists_must_be_as_long_as_the_prompts() -> None:
    params = SamplingParams()
    assert one_for_each("sampling_params", params, SamplingParams, 2, list) == [params] * 2
    assert one_for_each("priority", None, int, 2, int) == [0, 0]
    assert one_for_each("priority", [1, 2], int, 2, int) == [1, 2]
    assert one_for_each("priority", [None, 2], int, 2, int) == [0, 2]
    with pytest.raises(InputError, match="priority has 3 entries for 2 prompts"):
        one_for_each("priority", [1, 2, 3], int, 2, int)
    with pytest.raises(InputError, match="prompt 1 of 2: priority='x' must be a whole number"):
        one_for_each("priority", [1, "x"], int, 2, int)
    with pytest.raises(InputError, match=r"^priority='x' must be a whole number"):
        one_for_each("priority", "x", int, 1, int)
