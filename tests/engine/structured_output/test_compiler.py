"""Every form compiles and holds; what does not compile is refused in one line."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from engine.byte_tokenizer import byte_level_tokenizer
from engine.errors import InputError
from engine.structured_output import GrammarCompiler
from tests.engine.structured_output.random_model import answer, compiler, words, write
from workbench.sampling_params import SamplingParams
from workbench.structured_output import allowed_token_ids, is_allowed

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def params(**form: Any) -> SamplingParams:
    return SamplingParams(structured_outputs=form, max_tokens=60)


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("seed", range(5))
def test_every_form_holds_a_model_of_chance(kind: str, seed: int) -> None:
    assert re.fullmatch("[a-f]{3,6}", answer(seed=seed, kind=kind, regex="[a-f]{3,6}").text)
    choices = ["yes", "no", 'a "quoted"\nline', "é/\\"]
    assert answer(seed=seed, kind=kind, choice=choices).text in choices
    lark = 'start: "<" WORD ">"\nWORD: /[a-z]{1,4}/'
    assert re.fullmatch("<[a-z]{1,4}>", answer(seed=seed, kind=kind, grammar=lark).text)
    ebnf = 'root ::= "x" digit digit?\ndigit ::= [0-9]'
    assert re.fullmatch("x[0-9]{1,2}", answer(seed=seed, kind=kind, grammar=ebnf).text)
    made = json.loads(answer(seed=seed, kind=kind, json=PERSON).text)
    assert isinstance(made["name"], str)
    assert isinstance(made["age"], int)
    assert isinstance(json.loads(answer(seed=seed, kind=kind, json_object=True).text), dict)


def test_an_answer_that_can_only_end_is_complete() -> None:
    assert answer(choice=["abc"]).how == "complete"
    assert answer(json={"type": "boolean"}).how == "complete"
    # a number could go on
    assert answer(json={"type": "number"}).how == "end"


def test_there_is_no_whitespace_unless_it_is_asked_for() -> None:
    grammar = compiler("bytes").compile(params(json=PERSON))
    free = compiler("bytes").compile(params(json=PERSON, disable_any_whitespace=False))
    some = compiler("bytes").compile(params(json=PERSON, whitespace_pattern="[ ]"))
    token_ids = words("bytes").tokenizer.encode('{ "name"').ids
    assert grammar is not None
    assert free is not None
    assert some is not None
    assert [each.accept_token(token_ids[0]) for each in (grammar, free, some)] == [True] * 3
    assert [each.accept_token(token_ids[1]) for each in (grammar, free, some)] == [
        False,
        True,
        True,
    ]
    assert grammar.failure is not None
    assert "\n" not in grammar.failure


def test_tags_leave_the_text_around_them_free() -> None:
    tag = {
        "structures": [{"begin": "<f>", "schema": {"type": "boolean"}, "end": "</f>"}],
        "triggers": ["<f"],
    }
    for text, is_fine in (("hi", True), ("a <f>true</f> b", True), ("<f>1</f>", False)):
        grammar = compiler("bytes").compile(params(structural_tag=tag))
        assert grammar is not None
        token_ids = words("bytes").tokenizer.encode(text).ids
        assert all(map(grammar.accept_token, token_ids)) is is_fine


@pytest.mark.parametrize(
    ("form", "part"),
    [
        ({"regex": "(("}, "unclosed"),
        ({"regex": "(?!a)b"}, "look-around"),
        ({"json": {"type": "colour"}}, "colour"),
        ({"json": {"$ref": "#/nowhere"}}, "nowhere"),
        ({"json": {"$ref": "http://example.com/schema.json"}}, "not"),
        ({"json": {"type": "integer", "minimum": 5, "maximum": 3}}, "greater"),
        ({"json": {"type": "object", "uniqueItems": True}}, "uniqueItems"),
        ({"grammar": "start: nothing"}, "nothing"),
        ({"grammar": "other ::= "}, "root"),
        ({"grammar": "nonsense"}, ""),
        ({"structural_tag": {"structures": []}}, "triggers"),
        ({"structural_tag": {"structures": [{"begin": "x"}], "triggers": ["<"]}}, "begin"),
    ],
)
def test_what_does_not_compile_is_refused_in_one_line(form: dict[str, Any], part: str) -> None:
    own = compiler("bytes")
    for ask in (own.validate, own.compile):
        with pytest.raises(InputError) as caught:
            ask(params(**form))
        message = str(caught.value)
        assert message.startswith(f"structured_outputs.{next(iter(form))} does not compile: ")
        assert part in message
        assert "\n" not in message
        assert len(message) < 400


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InputError, match="recursion"):
        compiler("bytes").validate(params(json=schema))


def test_what_turns_out_to_be_too_large_fails_when_it_does() -> None:
    grammar = compiler("bytes").compile(params(regex="x(a{1000}){1000}"))
    assert grammar is not None
    row = np.zeros(grammar.num_words, dtype=np.int32)
    grammar.fill_bitmask(row, 9)
    assert not grammar.accept_token(words("bytes").tokenizer.encode("x").ids[0])
    assert "too many" in str(grammar.failure)
    assert "\n" not in str(grammar.failure)
    grammar.fill_bitmask(row, 8)
    assert (row == -1).all()
    assert not grammar.accept_token(5)
    assert not grammar.is_complete


def test_a_request_without_a_form_has_no_grammar() -> None:
    own = compiler("bytes")
    own.validate(SamplingParams())
    assert own.compile(SamplingParams()) is None


def test_grammars_of_one_form_do_not_touch_each_other() -> None:
    own, given = compiler("bytes"), words("bytes")
    first, second = own.compile(params(json=PERSON)), own.compile(params(json=PERSON))
    assert first is not None
    assert second is not None
    assert write(first, given, 60, seed=1).how == "complete"
    assert json.loads(write(second, given, 60, seed=2).text)
    assert first.token_ids != second.token_ids


def test_rolling_back_leads_to_the_same_bitmask() -> None:
    given = words("pieces")
    grammar = compiler("pieces").compile(params(json=PERSON))
    assert grammar is not None
    token_ids = given.tokenizer.encode('{"name":"x","age":7}').ids
    rows = []
    for token_id in token_ids:
        row = np.empty(grammar.num_words, dtype=np.int32)
        grammar.fill_bitmask(row, 500)
        rows.append(row)
        assert is_allowed(row, token_id)
        assert grammar.accept_token(token_id)
    assert grammar.is_complete
    for count in (1, 2, len(token_ids) - 3):
        grammar.rollback(count)
    assert not grammar.is_complete
    again = np.empty_like(rows[0])
    grammar.fill_bitmask(again, 500)
    assert (again == rows[0]).all()


def test_a_model_may_have_more_tokens_than_its_tokenizer_or_fewer() -> None:
    tokenizer = byte_level_tokenizer()
    for vocab_size in (256, 258, 259, 300, 1000):
        own = GrammarCompiler(tokenizer, vocab_size, [257])
        grammar = own.compile(params(regex="a*"))
        assert grammar is not None
        row = np.empty(grammar.num_words, dtype=np.int32)
        grammar.fill_bitmask(row, 10)
        assert len(row) == -(-vocab_size // 32)
        may = allowed_token_ids(row).tolist()
        ends = [257] if vocab_size > 257 else []
        assert may == [*tokenizer.encode("a").ids, *ends]


def test_without_an_end_token_an_answer_ends_when_it_is_complete() -> None:
    tokenizer = byte_level_tokenizer()
    grammar = GrammarCompiler(tokenizer, 259).compile(params(choice=["no"]))
    assert grammar is not None
    assert all(map(grammar.accept_token, tokenizer.encode("no").ids))
    assert grammar.is_complete


def test_the_end_is_kept_back_by_min_tokens_and_ignore_eos() -> None:
    row = np.empty(words("bytes").compiler().compile(params(regex="a")).num_words, dtype=np.int32)
    for settings, first_end in (({}, 0), ({"min_tokens": 3}, 3), ({"ignore_eos": True}, None)):
        asked = SamplingParams(structured_outputs={"regex": "a*"}, max_tokens=9, **settings)
        grammar = compiler("bytes").compile(asked)
        assert grammar is not None
        letter = words("bytes").tokenizer.encode("a").ids[0]
        ends = []
        for count in range(6):
            grammar.fill_bitmask(row, 9 - count)
            ends.append(is_allowed(row, 257))
            grammar.accept_token(letter)
        assert ends == [first_end is not None and count >= first_end for count in range(6)]


def test_what_only_the_end_may_follow_ends_before_min_tokens() -> None:
    asked = SamplingParams(structured_outputs={"choice": ["no"]}, max_tokens=9, min_tokens=5)
    grammar = compiler("bytes").compile(asked)
    assert grammar is not None
    assert write(grammar, words("bytes"), 9).how == "complete"


def test_a_tokenizer_that_is_not_understood_is_refused() -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        GrammarCompiler(object(), 300).warm_up()


def test_compilers_may_be_shared_by_threads() -> None:
    own = words("bytes").compiler()
    forms = [{"regex": f"[a-z]{{{i % 5 + 1}}}"} for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        grammars = list(pool.map(lambda form: own.compile(params(**form)), forms))
    for i, grammar in enumerate(grammars):
        assert grammar is not None
        assert len(write(grammar, words("bytes"), 60).token_ids) == i % 5 + 1
