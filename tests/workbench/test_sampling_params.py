"""Sampling settings: defaults and ranges, with vLLM's names."""

from typing import Any

import numpy as np
import pytest

from workbench.errors import ConfigError
from workbench.sampling_params import RequestOutputKind, SamplingParams


def test_defaults_sample_freely() -> None:
    params = SamplingParams()
    assert (params.n, params.temperature, params.top_p, params.top_k) == (1, 1.0, 1.0, 0)
    assert (params.min_p, params.repetition_penalty, params.max_tokens) == (0.0, 1.0, 16)
    assert params.seed is None
    assert params == SamplingParams()


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0.0},
        {"top_p": 1e-6},
        {"top_k": -1},
        {"min_p": 1.0},
        {"presence_penalty": -2.0, "frequency_penalty": 2.0},
        {"max_tokens": None, "min_tokens": 1000},
        {"max_tokens": 5, "min_tokens": 5},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(values: dict[str, Any]) -> None:
    params = SamplingParams(**values)
    for name, value in values.items():
        assert getattr(params, name) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n": 0}, "n=0 must be at least 1"),
        ({"temperature": -0.1}, "temperature=-0.1 must be 0 (greedy) or more"),
        ({"temperature": float("nan")}, "temperature=nan must be"),
        ({"top_p": 0.0}, "top_p=0.0 must be in (0, 1]"),
        ({"top_p": 1.5}, "top_p=1.5 must be in (0, 1]"),
        ({"top_k": -2}, "top_k=-2 must be"),
        ({"min_p": 1.5}, "min_p=1.5 must be in [0, 1]"),
        ({"presence_penalty": 2.5}, "presence_penalty=2.5 must be in [-2, 2]"),
        ({"frequency_penalty": -3}, "frequency_penalty=-3 must be in [-2, 2]"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0 must be above 0"),
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens=5 must be between 0 and max_tokens=4"),
        ({"min_tokens": -1}, "min_tokens=-1 must be between 0 and max_tokens=16"),
        ({"max_tokens": None, "min_tokens": -1}, "min_tokens=-1 must be at least 0"),
        ({"temperature": float("inf")}, "temperature=inf must be 0 (greedy) or more, and finite"),
        ({"temperature": "hot"}, "temperature='hot' must be"),
        ({"temperature": True}, "temperature=True must be"),
        ({"temperature": None}, "temperature=None must be"),
        ({"top_p": float("nan")}, "top_p=nan must be in (0, 1]"),
        ({"min_p": float("nan")}, "min_p=nan must be in [0, 1]"),
        ({"top_k": 2.5}, "top_k=2.5 must be"),
        ({"n": 1.0}, "n=1.0 must be at least 1"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty=inf must be above 0 and finite"),
        ({"seed": 2**64}, "must be a whole number of at most 64 bits"),
        ({"seed": 0.5}, "seed=0.5 must be a whole number"),
        ({"logprobs": -2}, "logprobs=-2 must be -1 (the whole vocabulary), 0 or more"),
        ({"prompt_logprobs": "all"}, "prompt_logprobs='all' must be -1"),
        ({"stop": ["a", ""]}, "stop='' must be non-empty strings"),
        ({"stop": [5]}, "stop=5 must be non-empty strings"),
        ({"stop": "a", "detokenize": False}, "stop=['a'] needs text and detokenize=False gives"),
        ({"stop": 5}, "stop=5 must be a sequence"),
        ({"stop_token_ids": 5}, "stop_token_ids=5 must be a sequence"),
        ({"logit_bias": [5]}, "logit_bias=[5] must be a dict of token ids and biases"),
        ({"stop_token_ids": [-1]}, "stop_token_ids=-1 must be token ids"),
        ({"stop_token_ids": ["</s>"]}, "stop_token_ids='</s>' must be token ids"),
        ({"allowed_token_ids": []}, "allowed_token_ids=[] must be non-empty or None"),
        ({"bad_words": [""]}, "bad_words='' must be non-empty strings"),
        ({"bad_words_token_ids": [[]]}, "bad_words_token_ids holds an empty sequence"),
        ({"logit_bias": {5: 101}}, "logit_bias[5]=101 must be in [-100, 100]"),
        ({"logit_bias": {5: float("nan")}}, "logit_bias[5]=nan must be in [-100, 100]"),
        ({"logit_bias": {"x": 1}}, "logit_bias has the key 'x': keys must be token ids"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens=0 must be -1"),
        ({"output_kind": "delta"}, "output_kind='delta' must be a RequestOutputKind"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SamplingParams(**values)
    assert message in str(caught.value)


def test_values_take_one_form_whatever_they_come_in() -> None:
    params = SamplingParams(
        stop="end",
        stop_token_ids=[3, 3, 4],
        bad_words=["no", "no"],
        bad_words_token_ids=[[1, 1]],
        allowed_token_ids=(9,),
        logit_bias={"7": 1},  # type: ignore[dict-item]
        logprobs=True,
        seed=-1,
    )
    assert params.stop == ("end",)
    assert params.stop_token_ids == (3, 4)
    assert params.bad_words == ("no",)
    assert params.bad_words_token_ids == ((1, 1),)
    assert params.allowed_token_ids == (9,)
    assert params.logit_bias == {7: 1.0}
    assert params.logprobs == 1
    assert params.seed is None
    nothing = SamplingParams(stop=None, stop_token_ids=None, logit_bias=None, bad_words=None)
    assert nothing == SamplingParams()


def test_a_clone_is_a_copy_with_changes() -> None:
    params = SamplingParams(temperature=0.5, stop=["x"])
    assert params.clone() == params
    changed = params.clone(max_tokens=5)
    assert (changed.max_tokens, changed.temperature, params.max_tokens) == (5, 0.5, 16)
    with pytest.raises(ConfigError, match="max_tokens=0 must be"):
        params.clone(max_tokens=0)
    with pytest.raises(ConfigError, match="no field max_token: did you mean max_tokens"):
        params.clone(max_token=5)


def test_a_wrong_value_is_a_value_error_as_in_vllm() -> None:
    with pytest.raises(ValueError, match="top_p=2"):
        SamplingParams(top_p=2)


def test_numpy_numbers_are_numbers() -> None:
    params = SamplingParams(
        temperature=np.float32(0.5), top_k=np.int64(4), stop_token_ids=np.array([1, 2])
    )
    assert (params.temperature, params.top_k, params.stop_token_ids) == (0.5, 4, (1, 2))


def test_what_is_handed_out_is_everything_so_far_by_default() -> None:
    assert SamplingParams().output_kind is RequestOutputKind.CUMULATIVE
