"""tool_choice: the form of the answer, how it is read, and what is refused."""

import json
from typing import Any

import pytest

from engine.errors import InputError
from engine.server.tools import constraint_for, parser_for, tool_parser
from engine.server.tools.parser import gather
from tests.engine.structured_output.random_model import compiler, words, write
from workbench.sampling_params import SamplingParams
from workbench.structured_outputs_params import StructuredOutputsParams


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    function = {"name": name, "description": "…"}
    if parameters is not None:
        function["parameters"] = parameters
    return {"type": "function", "function": function}


WEATHER = tool(
    "weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"$ref": "#/$defs/Unit"},
            "around": {"type": "array", "items": {"$ref": "#/properties/city"}},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
        "$defs": {"Unit": {"enum": ["C", "F"]}},
    },
)
# the same name for another definition
COLOUR = tool(
    "colour",
    {
        "properties": {"unit": {"$ref": "#/$defs/Unit"}},
        "required": ["unit"],
        "additionalProperties": False,
        "$defs": {"Unit": {"enum": ["red", "blue"]}},
    },
)
CLOCK = tool("clock")
TOOLS = [WEATHER, COLOUR, CLOCK]
NAMED = {"type": "function", "function": {"name": "weather"}}


def text_of(form: StructuredOutputsParams, seed: int, max_tokens: int = 100) -> str:
    params = SamplingParams(structured_outputs=form, max_tokens=max_tokens)
    grammar = compiler("bytes").compile(params)
    assert grammar is not None
    return write(grammar, words("bytes"), max_tokens, seed).text


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_the_model_is_free_unless_it_must_call(choice: str | None) -> None:
    assert constraint_for(TOOLS, choice) is None
    assert constraint_for(None, choice) is None


def test_who_reads_the_answer() -> None:
    hermes = tool_parser("hermes")
    assert parser_for(TOOLS, "auto", hermes) is hermes
    assert parser_for(TOOLS, None, hermes) is hermes
    assert parser_for(TOOLS, "auto", None) is None
    assert parser_for(TOOLS, "none", hermes) is None
    assert parser_for(None, None, hermes) is None
    # forced calls are read whatever the family
    assert parser_for(TOOLS, "required", None) is not None
    assert parser_for(TOOLS, NAMED, None) is not None


@pytest.mark.parametrize("seed", range(8))
def test_required_calls_of_a_model_of_chance_are_good(seed: int) -> None:
    form, parser = constraint_for(TOOLS, "required"), parser_for(TOOLS, "required", None)
    assert form is not None
    assert parser is not None
    answer = parser.parse(text_of(form, seed, max_tokens=220))
    assert answer.content is None
    assert answer.tool_calls
    for call in answer.tool_calls:
        arguments = json.loads(call.arguments)
        if call.name == "weather":
            assert arguments["unit"] in ("C", "F")
        elif call.name == "colour":
            assert arguments["unit"] in ("red", "blue")
        else:
            assert (call.name, arguments) == ("clock", {})


@pytest.mark.parametrize("seed", range(4))
def test_a_named_function_is_called_once(seed: int) -> None:
    form = constraint_for(TOOLS, NAMED)
    parser = parser_for(TOOLS, NAMED, tool_parser("mistral"))
    assert form is not None
    assert parser is not None
    text = text_of(form, seed)
    (call,) = parser.parse(text).tool_calls
    assert (call.name, call.arguments) == ("weather", text)
    assert len(call.id) == 9
    assert set(json.loads(text)) >= {"city", "unit"}
    stream = parser.stream()
    deltas = [delta for char in text for delta in stream.feed(char)] + stream.finish()
    assert gather(deltas).tool_calls[0].arguments == text


def test_a_named_function_without_arguments_is_still_called() -> None:
    choice = {"function": {"name": "clock"}}
    parser = parser_for(TOOLS, choice, None)
    assert parser is not None
    assert [call.name for call in parser.parse("").tool_calls] == ["clock"]
    form = constraint_for(TOOLS, choice)
    assert form is not None
    assert text_of(form, 1) == "{}"


@pytest.mark.parametrize(
    ("tools", "choice", "part"),
    [
        (TOOLS, "always", "none, auto, required"),
        (None, "required", "needs tools"),
        (
            [{"function": {"name": "f", "parameters": {"type": "string"}}}],
            "required",
            "of type 'string'",
        ),
        ([], NAMED, "the request has no tools"),
        (TOOLS, {"function": {"name": "stocks"}}, "the tools are weather, colour, clock"),
        (TOOLS, {"type": "function"}, "None"),
        ([{"type": "function"}], "required", "no function with a name"),
        ([tool("f", "text")], "required", "JSON schema"),
    ],
)
def test_what_makes_no_sense_is_refused(tools: Any, choice: Any, part: str) -> None:
    for ask in (lambda: constraint_for(tools, choice),):
        with pytest.raises(InputError, match=part) as caught:
            ask()
        assert "\n" not in str(caught.value)
