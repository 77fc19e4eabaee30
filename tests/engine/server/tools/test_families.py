"""What each family's calls look like, whole and as they stream."""

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.server.tools import TOOL_PARSERS, CallDelta, ParsedAnswer, ToolParser, tool_parser
from engine.server.tools.choice import NamedCallParser, RequiredCallsParser
from engine.server.tools.parser import Delta, gather
from workbench.errors import ConfigError

Calls = list[tuple[str, str]]
WEATHER = '{"name": "weather", "arguments": {"city": "Paris, \\"F\\" }]", "days": [1, {}]}}'
ARGUMENTS = '{"city": "Paris, \\"F\\" }]", "days": [1, {}]}'
CASES: dict[str, list[tuple[str, str | None, Calls]]] = {
    "hermes": [
        ("just text", "just text", []),
        (" \n", " \n", []),
        (f"<tool_call>\n{WEATHER}\n</tool_call>", None, [("weather", ARGUMENTS)]),
        (f"Wait. <tool_call>{WEATHER}</tool_call>", "Wait. ", [("weather", ARGUMENTS)]),
        (
            f'<tool_call>{WEATHER}</tool_call>\n\n<tool_call>{{"name":"b"}}</tool_call> ',
            None,
            [("weather", ARGUMENTS), ("b", "{}")],
        ),
        ('<tool_call>{"arguments":{"a":1},"name":"f"}</tool_call>', None, [("f", '{"a":1}')]),
        ('<tool_call>{"id":[1],"name":"f","x":2}</tool_call>', None, [("f", "{}")]),
        # the closing tag is forgotten, or what stands before it is nonsense
        ('<tool_call>{"name":"f"}<tool_call>{"name":"g"}', None, [("f", "{}"), ("g", "{}")]),
        ('<tool_call>{"name":"f"} so</tool_call>bye', "bye", [("f", "{}")]),
        # cut off within the arguments
        ('<tool_call>{"name":"f","arguments":{"a":"b', None, [("f", '{"a":"b')]),
        # no calls
        ("a <tool_call>hm</tool_call>", "a <tool_call>hm</tool_call>", []),
        ('<tool_call>{"na', '<tool_call>{"na', []),
        ('<tool_call>{"name":7}', '<tool_call>{"name":7}', []),
        ('<tool_call>{"name":""}', '<tool_call>{"name":""}', []),
        ('<tool_call>{"name":"f","arguments":"a"}', '<tool_call>{"name":"f","arguments":"a"}', []),
        ('<tool_call>{"name":"f",,}', '<tool_call>{"name":"f",,}', []),
        ("1 < 2 <tool", "1 < 2 <tool", []),
        ("<<tool_call>", "<<tool_call>", []),
        ('<tool_call>{"na\\u006de":"\\u0066"}', None, [("f", "{}")]),
    ],
    "llama3_json": [
        ("just text", "just text", []),
        ('{"name":"f","parameters":{"a":1}}', None, [("f", '{"a":1}')]),
        ('\n<|python_tag|>{"name":"f","parameters":{}}', None, [("f", "{}")]),
        (
            '{"name":"f","parameters":{}}; {"type":"function","name":"g","parameters":{"b":"}"}}',
            None,
            [("f", "{}"), ("g", '{"b":"}"}')],
        ),
        ('{"name":"Bob","age":3}', '{"name":"Bob","age":3}', []),
        ('{"a":1} and', '{"a":1} and', []),
        ("<|python_tag|>print(1)", "<|python_tag|>print(1)", []),
        ('{"name":"f","parameters":{}} done', " done", [("f", "{}")]),
        ("<|py", "<|py", []),
    ],
    "mistral": [
        ("just text", "just text", []),
        (f"[TOOL_CALLS] [{WEATHER}]", None, [("weather", ARGUMENTS)]),
        (
            'So: [TOOL_CALLS][{"name":"f","arguments":{}},{"name":"g","arguments":{"a":2}}]',
            "So: ",
            [("f", "{}"), ("g", '{"a":2}')],
        ),
        ('[TOOL_CALLS]f{"a":[1]}', None, [("f", '{"a":[1]}')]),
        (
            '[TOOL_CALLS]f[ARGS]{"a":1}[TOOL_CALLS]g_2[CALL_ID]abc[ARGS]{}',
            None,
            [("f", '{"a":1}'), ("g_2", "{}")],
        ),
        ("[TOOL_CALLS]", "[TOOL_CALLS]", []),
        ("[TOOL_CALLS] is a word {", "[TOOL_CALLS] is a word {", []),
        ("[TOOL_CALLS][1,2] x", "[TOOL_CALLS][1,2] x", []),
        ("[TOOL_CA", "[TOOL_CA", []),
    ],
    "pythonic": [
        ("just text", "just text", []),
        ("[f(a=1, b='x]'), g.h()]", None, [("f", '{"a": 1, "b": "x]"}'), ("g.h", "{}")]),
        (
            "[f(a=[1, {'b': None}], c=-2.5, d=True)] ok",
            " ok",
            [("f", '{"a": [1, {"b": null}], "c": -2.5, "d": true}')],
        ),
        ("[1, 2]", "[1, 2]", []),
        ("[f(1)]", "[f(1)]", []),
        ("[f(a=g())]", "[f(a=g())]", []),
        ("[f(a=1", "[f(a=1", []),
        ("[]", "[]", []),
        ("[f(**a)]", "[f(**a)]", []),
    ],
}
ALL = [(name, *case) for name, cases in CASES.items() for case in cases]


def plain(answer: ParsedAnswer) -> tuple[str | None, Calls]:
    return answer.content, [(call.name, call.arguments) for call in answer.tool_calls]


def streamed(parser: ToolParser, text: str, random: Random) -> list[Delta]:
    """The deltas of a text that comes in pieces of chance."""
    stream = parser.stream()
    deltas: list[Delta] = []
    at = 0
    while at < len(text):
        size = random.choice((1, 1, 2, 3, 7, 20))
        deltas += stream.feed(text[at : at + size])
        at += size
    return [*deltas, *stream.finish()]


@pytest.mark.parametrize(("name", "text", "content", "calls"), ALL)
def test_a_whole_answer(name: str, text: str, content: str | None, calls: Calls) -> None:
    assert plain(tool_parser(name).parse(text)) == (content, calls)


@pytest.mark.parametrize(("name", "text", "content", "calls"), ALL)
def test_pieces_add_up_to_the_whole(
    name: str, text: str, content: str | None, calls: Calls
) -> None:
    parser = tool_parser(name)
    for seed in range(20):
        deltas = streamed(parser, text, Random(seed))
        assert plain(gather(deltas)) == (content, calls)
        check_order(deltas)


def check_order(deltas: list[Delta]) -> None:
    """Every call is named first, then come its arguments; calls come one after the other."""
    last = -1
    for delta in deltas:
        assert delta, "an empty piece"
        if not isinstance(delta, CallDelta):
            continue
        if delta.name is not None:
            assert delta.id
            assert delta.index == last + 1
            last += 1
        assert delta.index == last
        assert (delta.name is None) == (delta.id is None)


@pytest.mark.parametrize("name", [*TOOL_PARSERS, "required", "named"])
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    parts=st.lists(
        st.sampled_from(
            [
                "<tool_call>",
                "</tool_call>",
                "<tool",
                "[TOOL_CALLS]",
                "<|python_tag|>",
                "[ARGS]",
                '{"name":"f","arguments":{"a":"\\\\"}}',
                '{"name":"g","parameters":{}}',
                "f(a=1)",
                "[",
                "]",
                "{",
                "}",
                ",",
                ";",
                '"',
                "\\",
                "'",
                "\n",
                " ",
                "name",
                "é😀",
                "{}",
                ":",
                "f",
            ]
        ),
        max_size=14,
    ),
    random=st.randoms(use_true_random=False),
)
def test_whatever_comes_pieces_add_up_to_the_whole(
    name: str, parts: list[str], random: Random
) -> None:
    given_parsers = {"required": RequiredCallsParser(), "named": NamedCallParser("f")}
    parser = given_parsers.get(name) or tool_parser(name)
    text = "".join(parts)
    deltas = streamed(parser, text, random)
    check_order(deltas)
    assert plain(gather(deltas)) == plain(parser.parse(text))
    if not any(isinstance(delta, CallDelta) for delta in deltas):
        # nothing is lost, and nothing is invented
        assert "".join(str(delta) for delta in deltas) == text


@pytest.mark.parametrize(
    ("name", "text", "call"),
    [
        ("hermes", "<tool_call>" + json.dumps({"name": "f", "arguments": {"a": "x" * 50}}), "f"),
        ("llama3_json", json.dumps({"name": "f", "parameters": {"a": "x" * 50}}), "f"),
        ("mistral", "[TOOL_CALLS]f" + json.dumps({"a": "x" * 50}), "f"),
    ],
)
def test_arguments_come_as_they_are_written(name: str, text: str, call: str) -> None:
    stream = tool_parser(name).stream()
    deltas = [stream.feed(char) for char in text]
    first = next(i for i, each in enumerate(deltas) if each)
    assert isinstance(deltas[first][0], CallDelta)
    assert deltas[first][0].name == call
    # from there on every character is told at once, but for the braces of the call
    assert all(deltas[first + 1 : -1])


def test_content_is_not_held_back() -> None:
    stream = tool_parser("hermes").stream()
    assert [stream.feed(char) for char in "a b<"] == [["a"], [" "], ["b"], []]
    assert stream.feed("c") == ["<c"]


def test_ids_are_as_the_family_takes_them() -> None:
    hermes, mistral = tool_parser("hermes"), tool_parser("mistral")
    assert hermes.new_id().startswith("chatcmpl-tool-")
    assert mistral.new_id().isalnum()
    assert len(mistral.new_id()) == 9
    assert len({mistral.new_id() for _ in range(100)}) == 100


def test_an_unknown_parser_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="choose one of hermes, llama3_json, mistral, pythonic"):
        tool_parser("gpt5")


def test_names_are_those_of_the_parsers() -> None:
    assert all(tool_parser(name).name == name for name in TOOL_PARSERS)
