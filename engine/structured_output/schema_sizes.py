"""How much text the parts of a JSON schema need at least: what an answer takes on by opening one.

An estimate from above for the common keywords; what it is wrong about costs a few tokens. Knows
schemas; knows no tokens and no grammar.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, repeat
from typing import Any

MAX_DEPTH = 12
MAX_PARTS = 2000
MAX_FILL = 4096
"""Most characters or items that a length in a schema is followed to."""
MAX_TEXT = 2**14
"""Characters behind which a smallest text is not followed: it fills most answers by itself."""
LONGEST_FORMAT = "2000-01-01T00:00:00.000+00:00-------"
ANY_VALUE = "null"


class SchemaSizes:
    """The parts of one schema.

    Args:
        schema: JSON text of a schema that compiles.
    """

    def __init__(self, schema: str) -> None:
        self._root = json.loads(schema)
        # parts that point at one another would be looked at again and again
        self._smallest: dict[tuple[int, int], str] = {}

    def optional_texts(self) -> Iterator[str]:
        """A smallest text, more or less, of each part that an answer may open or leave out."""
        pending: list[tuple[Any, int]] = [(self._root, 0)]
        num_parts = 0
        while pending and num_parts < MAX_PARTS:
            node, depth = pending.pop()
            num_parts += 1
            if isinstance(node, Mapping) and depth < MAX_DEPTH:
                yield from self._openings(node)
                pending += [(part, depth + 1) for part in self._parts(node)]

    def _openings(self, node: Mapping[str, Any]) -> Iterator[str]:
        required = node.get("required") or ()
        for key, part in _mapping(node, "properties").items():
            if key not in required:
                yield f",{json.dumps(key)}:{self.smallest(part)}"
        for key in ("additionalProperties", "patternProperties"):
            for part in _values(node.get(key)):
                yield f',"":{self.smallest(part)}'
        for part in _values(node.get("items")):
            yield f",{self.smallest(part)}"
        for key in ("anyOf", "oneOf"):
            yield from map(self.smallest, _values(node.get(key)))
        yield from (json.dumps(value) for value in node.get("enum") or ())

    def _parts(self, node: Mapping[str, Any]) -> Iterator[Any]:
        for key in ("properties", "patternProperties", "$defs", "definitions"):
            yield from _mapping(node, key).values()
        for key in ("additionalProperties", "items", "prefixItems", "anyOf", "oneOf", "allOf"):
            yield from _values(node.get(key))

    def smallest(self, node: Any, depth: int = 0) -> str:
        """A small text that fits a part; of alternatives, the longest of their small texts."""
        if not isinstance(node, Mapping) or depth > MAX_DEPTH:
            return ANY_VALUE
        key = id(node), depth
        found = self._smallest.get(key)
        if found is None:
            found = self._smallest[key] = self._look_at(node, depth)
        return found

    def _look_at(self, node: Mapping[str, Any], depth: int) -> str:
        if "$ref" in node:
            return self.smallest(self._resolve(node["$ref"]), depth + 1)
        if "const" in node:
            return json.dumps(node["const"])
        if node.get("enum"):
            return max(map(json.dumps, node["enum"]), key=len)
        choices = [*_values(node.get("anyOf")), *_values(node.get("oneOf"))]
        if choices:
            return max((self.smallest(each, depth + 1) for each in choices), key=len)
        if node.get("allOf"):
            return _joined(self.smallest(each, depth + 1) for each in _values(node["allOf"]))
        kinds = node.get("type", ANY_VALUE)
        kinds = kinds if isinstance(kinds, list) else [kinds]
        return max((self._of_kind(kind, node, depth) for kind in kinds), key=len, default=ANY_VALUE)

    def _of_kind(self, kind: Any, node: Mapping[str, Any], depth: int) -> str:
        if kind == "object":
            parts = _mapping(node, "properties")
            required = [key for key in node.get("required") or () if isinstance(key, str)]
            texts = (
                f"{json.dumps(key)}:{self.smallest(parts.get(key), depth + 1)}" for key in required
            )
            return "{" + _joined(texts, ",") + "}"
        if kind == "array":
            first = _values(node.get("prefixItems"))
            num_more = max(_length(node, "minItems") - len(first), 0)
            item = self.smallest(node.get("items"), depth + 1)
            num_more = min(num_more, MAX_FILL // len(item))
            texts = (self.smallest(each, depth + 1) for each in first)
            return "[" + _joined(chain(texts, repeat(item, num_more)), ",") + "]"
        if kind == "string":
            if "format" in node or "pattern" in node:
                return json.dumps(LONGEST_FORMAT)
            return json.dumps("a" * _length(node, "minLength"))
        if kind in ("integer", "number"):
            bounds = (node.get(key) for key in ("minimum", "maximum", "multipleOf"))
            return max((str(each) for each in bounds if each is not None), key=len, default="-1.0")
        return "false" if kind == "boolean" else ANY_VALUE

    def _resolve(self, reference: Any) -> Any:
        """The part that a reference within the schema points at."""
        node = self._root
        for step in str(reference).removeprefix("#").split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            if name:
                node = node.get(name) if isinstance(node, Mapping) else None
        return node


def _joined(texts: Iterable[str], between: str = "") -> str:
    """The texts in one, without those behind the first MAX_TEXT characters."""
    kept: list[str] = []
    size = 0
    for text in texts:
        kept.append(text)
        size += len(text)
        if size > MAX_TEXT:
            break
    return between.join(kept)


def _mapping(node: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = node.get(key)
    return value if isinstance(value, Mapping) else {}


def _values(value: Any) -> list[Any]:
    """A schema, or several of them, as a list."""
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, Mapping) else []


def _length(node: Mapping[str, Any], key: str) -> int:
    value = node.get(key)
    return min(int(value), MAX_FILL) if isinstance(value, int | float) else 0
