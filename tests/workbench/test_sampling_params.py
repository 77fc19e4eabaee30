"""Sampling settings: defaults and ranges, with vLLM's names."""

from typing import Any

import pytest

from workbench.errors import ConfigError
from workbench.sampling_params import SamplingParams


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
    ],
)
def test_a_value_out_of_range_is_named_with_its_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SamplingParams(**values)
    assert message in str(caught.value)
