"""JSON answers of a model of chance are closed in time, whatever the schema."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.structured_output.completion import Completion
from engine.structured_output.schema_sizes import MAX_TEXT, SchemaSizes
from tests.engine.structured_output.random_model import answer, compiler, words, write
from tests.engine.structured_output.schemas import fits, schemas
from workbench.sampling_params import SamplingParams

SETTINGS = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value", "kids"],
            "additionalProperties": False,
        }
    },
}


@SETTINGS
@given(
    schema=schemas(),
    max_tokens=st.integers(60, 200),
    kind=st.sampled_from(["bytes", "pieces"]),
    seed=st.integers(0, 1 << 30),
)
def test_answers_of_chance_parse_and_fit(
    schema: dict[str, Any], max_tokens: int, kind: str, seed: int
) -> None:
    asked = SamplingParams(structured_outputs={"json": schema}, max_tokens=max_tokens)
    try:
        grammar = compiler(kind).compile(asked)
    except InputError:
        assume(False)
    assert grammar is not None
    shortest = _shortest(kind, asked)
    # what has no room for even a small answer is not closed
    assume(shortest is not None and shortest <= max_tokens)
    made = write(grammar, words(kind), max_tokens, seed)
    assert made.how in ("end", "complete")
    assert fits(json.loads(made.text), schema), made.text


def _shortest(kind: str, asked: SamplingParams) -> int | None:
    """Tokens of the way to the end that is known at the beginning."""
    assert asked.structured_outputs is not None
    compiled = compiler(kind)._find(asked.structured_outputs)
    assert compiled.wrap_up is not None
    way = compiled.wrap_up.first_way(compiled.matcher)
    return None if way is None else len(way)


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("max_tokens", [60, 131])
@pytest.mark.parametrize(
    "schema", [True, {}, {"type": "object"}, {"type": "string"}, {"type": "number"}, TREE]
)
def test_what_has_no_bounds_is_closed(schema: Any, max_tokens: int, kind: str) -> None:
    for seed in range(6):
        made = answer(max_tokens, seed, kind, json=json.dumps(schema))
        assert made.how != "length"
        json.loads(made.text)


def test_any_object_is_closed() -> None:
    for seed in range(10):
        made = answer(60, seed, json_object=True)
        assert isinstance(json.loads(made.text), dict)


def test_whitespace_that_is_allowed_is_closed_as_well() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    for seed in range(10):
        made = answer(90, seed, json=schema, disable_any_whitespace=False)
        assert "a" in json.loads(made.text)


def test_closing_can_be_switched_off() -> None:
    endless = {"type": "string", "minLength": 50}
    cut = answer(60, json=endless, wrap_up=False)
    assert (cut.how, len(cut.token_ids)) == ("length", 60)
    assert answer(60, json=endless).how == "complete"


def test_an_answer_without_room_for_its_smallest_form_is_left_alone() -> None:
    schema = {"type": "string", "minLength": 50}
    assert len(answer(20, json=schema).token_ids) == 20


def test_a_model_that_ends_by_itself_is_not_disturbed() -> None:
    given = words("bytes")
    text = json.dumps({"note": "x" * 60}, separators=(",", ":"))
    token_ids = given.tokenizer.encode(text).ids
    schema = {"type": "object", "properties": {"note": {"type": "string"}}, "required": ["note"]}
    grammar = compiler("bytes").compile(SamplingParams(structured_outputs={"json": schema}))
    assert grammar is not None
    row = np.empty(grammar.num_words, dtype=np.int32)
    room = len(token_ids) + 20
    for count, token_id in enumerate(token_ids):
        grammar.fill_bitmask(row, room - count)
        assert int(row[token_id // 32]) >> token_id % 32 & 1, f"at {count}"
        assert grammar.accept_token(token_id)
    assert grammar.is_complete


def test_drafts_that_are_taken_back_do_not_mislead() -> None:
    schema = {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}
    given, max_tokens = words("bytes"), 60
    for seed in range(5):
        random = np.random.default_rng(seed)
        grammar = compiler("bytes").compile(SamplingParams(structured_outputs={"json": schema}))
        assert grammar is not None
        row = np.empty(grammar.num_words, dtype=np.int32)
        while not grammar.is_complete:
            left = max_tokens - len(grammar.token_ids)
            assert left > 0
            _look_ahead(grammar, row, left, random)
            grammar.fill_bitmask(row, left)
            assert grammar.accept_token(_choose(row, random))
        json.loads(given.tokenizer.decode(grammar.token_ids))


def _look_ahead(grammar: Any, row: np.ndarray, left: int, random: np.random.Generator) -> None:
    """Accept up to three drafts and take them back."""
    count = 0
    while count < min(3, left - 1) and not grammar.is_complete:
        grammar.fill_bitmask(row, left - count)
        grammar.accept_token(_choose(row, random))
        count += 1
    grammar.rollback(count)


def _choose(row: np.ndarray, random: np.random.Generator) -> int:
    may = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))
    return int(random.choice(may))


@pytest.mark.parametrize(
    ("schema", "begun"),
    [
        ({"type": "string", "pattern": "^[a-z]+@[a-z]+[.]org$"}, '"a'),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, ""),
        ({"enum": ["é", "éé"]}, ""),
        (TREE, '{"value":1,"kids":[{"value":-'),
        ({"type": "object"}, '{"a\\"b":[1,{"c":"\\u00'),
    ],
)
@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_there_is_a_way_to_the_end_from_anywhere(
    schema: dict[str, Any], begun: str, kind: str
) -> None:
    given, own = words(kind), compiler(kind)
    grammar = own.compile(SamplingParams(structured_outputs={"json": schema}))
    assert grammar is not None
    token_ids = given.tokenizer.encode(begun).ids
    assert all(map(grammar.accept_token, token_ids))
    way = Completion(grammar._vocabulary).find(grammar._matcher, token_ids)
    assert way is not None
    ids = [token_id for token_id in way if token_id != given.eos]
    json.loads(given.tokenizer.decode([*token_ids, *ids]))
    assert len(way) < 50


def test_what_an_answer_can_open_is_counted() -> None:
    schema = {
        "type": "object",
        "properties": {
            "must": {"type": "string"},
            "may": {"type": "object", "properties": {"n": {"const": 12345}}, "required": ["n"]},
            "list": {"type": "array", "items": {"enum": ["a", "bcd"]}},
            "one": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/x"}]},
            "loop": {"$ref": "#"},
        },
        "required": ["must", "list", "one"],
        "$defs": {"x": {"type": "string", "minLength": 7}},
    }
    texts = set(SchemaSizes(json.dumps(schema)).optional_texts())
    assert {',"may":{"n":12345}', ',"bcd"', '"aaaaaaa"', "null"} <= texts
    assert not any("must" in text and "loop" not in text for text in texts)
    assert list(SchemaSizes("true").optional_texts()) == []


def test_parts_that_point_at_one_another_are_looked_at_once() -> None:
    num_looks = 0

    class Counted(SchemaSizes):
        def smallest(self, node: Any, depth: int = 0) -> str:
            nonlocal num_looks
            num_looks += 1
            return super().smallest(node, depth)

    again = {"$ref": "#/$defs/d"}
    for part in (
        {"anyOf": [again] * 5 + [{"type": "null"}]},
        {"allOf": [again] * 5},
        {"type": "array", "prefixItems": [again] * 5},
        {
            "type": "object",
            "required": list("abcde"),
            "properties": dict.fromkeys("abcde", again),
        },
    ):
        num_looks = 0
        schema = json.dumps({"$defs": {"d": part}, **again})
        sizes = [len(text) for text in Counted(schema).optional_texts()]
        assert num_looks < 3000
        assert max(sizes, default=0) < 10 * MAX_TEXT
