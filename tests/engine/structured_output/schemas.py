"""Schemas of chance, and a plain judge of what fits them."""

import re
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

FORMATS = {"date": r"\d{4}-\d{2}-\d{2}", "uuid": r"[0-9a-fA-F-]{36}"}
NAMES = st.sampled_from(["name", "age", "tags", "x", "a long name", "é"])


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Ordinary schemas, as people write them for tools and answers."""
    return st.recursive(_leaves(), lambda parts: _objects(parts) | _arrays(parts) | _unions(parts))


def _leaves() -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.tuples(st.integers(-50, 50), st.integers(0, 900))
    lengths = st.tuples(st.integers(0, 6), st.integers(0, 9))
    return st.one_of(
        st.sampled_from(["string", "integer", "number", "boolean", "null"]).map(
            lambda kind: {"type": kind}
        ),
        bounds.map(lambda b: {"type": "integer", "minimum": b[0], "maximum": b[0] + b[1]}),
        lengths.map(lambda b: {"type": "string", "minLength": b[0], "maxLength": b[0] + b[1]}),
        st.sampled_from(sorted(FORMATS)).map(lambda name: {"type": "string", "format": name}),
        st.sampled_from(["^[A-Z]{2}-[0-9]+$", "^[a-z]+@[a-z]+[.]org$"]).map(
            lambda pattern: {"type": "string", "pattern": pattern}
        ),
        st.lists(st.sampled_from(["red", "green", "ultramarine", 7, None]), min_size=1).map(
            lambda values: {"enum": values}
        ),
    )


@st.composite
def _objects(draw: st.DrawFn, parts: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    properties = draw(st.dictionaries(NAMES, parts, max_size=3))
    required = [name for name in properties if draw(st.booleans())]
    more = draw(st.sampled_from([False, False, None, {"type": "integer"}]))
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    return schema if more is None else schema | {"additionalProperties": more}


def _arrays(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(parts, st.integers(0, 2)).map(
        lambda made: {"type": "array", "items": made[0], "minItems": made[1]}
    )


def _unions(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.lists(parts, min_size=2, max_size=3).map(lambda each: {"anyOf": each})


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is as its schema wants it; knows the keywords that `schemas` uses."""
    if "anyOf" in schema:
        return any(fits(value, part) for part in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    return _KINDS[schema["type"]](value, schema)


def _is_object(value: Any, schema: Mapping[str, Any]) -> bool:
    if not isinstance(value, dict) or any(name not in value for name in schema["required"]):
        return False
    more = schema.get("additionalProperties", {})
    for name, part in value.items():
        expected = schema["properties"].get(name, more)
        if expected is False or (expected and not fits(part, expected)):
            return False
    return True


def _is_array(value: Any, schema: Mapping[str, Any]) -> bool:
    is_long = isinstance(value, list) and len(value) >= schema["minItems"]
    return is_long and all(fits(part, schema["items"]) for part in value)


def _is_string(value: Any, schema: Mapping[str, Any]) -> bool:
    if not isinstance(value, str):
        return False
    pattern = FORMATS.get(schema.get("format", ""), ".*")
    return (
        schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        and re.fullmatch(pattern, value, re.DOTALL) is not None
        and re.search(schema.get("pattern", ""), value) is not None
    )


def _is_integer(value: Any, schema: Mapping[str, Any]) -> bool:
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
    return is_whole and schema.get("minimum", value) <= value <= schema.get("maximum", value)


_KINDS = {
    "object": _is_object,
    "array": _is_array,
    "string": _is_string,
    "integer": _is_integer,
    "number": lambda value, _: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value, _: isinstance(value, bool),
    "null": lambda value, _: value is None,
}
