"""Exactly one form, of the right type, in one notation; everything else is refused by name."""

import json
from typing import Any

import pytest

from workbench.errors import ConfigError
from workbench.recording.lines import encode, sampling_params
from workbench.sampling_params import SamplingParams
from workbench.structured_outputs_params import MAX_FORM_CHARACTERS, StructuredOutputsParams

LONG = "a" * (MAX_FORM_CHARACTERS + 1)


@pytest.mark.parametrize(
    ("fields", "form", "value"),
    [
        ({"json": {"b": 1, "a": [None]}}, "json", '{"b": 1, "a": [null]}'),
        ({"json": '{"b":1}'}, "json", '{"b": 1}'),
        ({"json": "true"}, "json", "true"),
        ({"regex": "a+"}, "regex", "a+"),
        ({"choice": ["x", "y", "x"]}, "choice", ("x", "y")),
        ({"grammar": "start: /a/"}, "grammar", "start: /a/"),
        ({"json_object": True}, "json_object", True),
        ({"json_object": False, "regex": "a"}, "regex", "a"),
        ({"structural_tag": {"triggers": []}}, "structural_tag", '{"triggers": []}'),
    ],
)
def test_a_form_has_one_notation(fields: dict[str, Any], form: str, value: Any) -> None:
    made = StructuredOutputsParams(**fields)
    assert made.form == form
    assert getattr(made, form) == value
    assert made.is_json is (form in ("json", "json_object"))
    assert hash(made) == hash(StructuredOutputsParams(**fields))


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({}, "none is set"),
        ({"json": {}, "regex": "a"}, "json and regex are set"),
        ({"json_object": False}, "none is set"),
        ({"json": "{"}, "json is no JSON"),
        ({"json": 3}, "type int"),
        ({"json": "[]"}, "type list"),
        ({"json": "false"}, "no answer"),
        ({"json": {"a": float("nan")}}, "no JSON"),
        ({"json": {"a": object()}}, "no JSON"),
        ({"json": "[" * 100_000}, "nested too deeply"),
        ({"json": {"a": LONG}}, str(MAX_FORM_CHARACTERS)),
        ({"regex": ""}, "non-empty text"),
        ({"regex": LONG}, str(MAX_FORM_CHARACTERS)),
        ({"regex": "\ud800"}, "no Unicode"),
        ({"choice": []}, "one or more"),
        ({"choice": "yes"}, "list of texts"),
        ({"choice": ["a", 1]}, "non-empty text"),
        ({"choice": [LONG[:-1], "b"]}, str(MAX_FORM_CHARACTERS)),
        ({"grammar": 5}, "non-empty text"),
        ({"json_object": "yes"}, "True or False"),
        ({"regex": "a", "disable_any_whitespace": None}, "True or False"),
        ({"regex": "a", "wrap_up": 1}, "True or False"),
        ({"json": {}, "whitespace_pattern": ""}, "non-empty text"),
        ({"structural_tag": "x"}, "no JSON"),
    ],
)
def test_what_is_no_form_is_refused_in_one_line(fields: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match="structured_outputs") as caught:
        StructuredOutputsParams(**fields)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sampling_parameters_take_a_form_or_its_fields() -> None:
    made = SamplingParams(structured_outputs={"regex": "a"})
    assert made.structured_outputs == StructuredOutputsParams(regex="a")
    assert made.clone(n=2).structured_outputs is made.structured_outputs
    assert SamplingParams().structured_outputs is None
    with pytest.raises(ConfigError, match="no field 'regexp'"):
        SamplingParams(structured_outputs={"regexp": "a"})
    text: Any = "a"
    with pytest.raises(ConfigError, match="type str"):
        SamplingParams(structured_outputs=text)


def test_a_form_is_recorded() -> None:
    made = SamplingParams(structured_outputs={"json": {"a": 1}, "wrap_up": False}, top_k=3)
    read = json.loads(encode({"params": made}))["params"]
    assert sampling_params(read) == made
