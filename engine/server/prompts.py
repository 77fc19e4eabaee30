"""The prompts of a completion: text or token ids, one or many, told apart by their types.

Knows JSON's types; what a prompt must be for a model, the engine checks.
"""

from typing import Any

from engine.server.errors import ApiError
from engine.token_ids import kinds_of

Prompt = str | list[int]

JSON_NAMES = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "dict": "object",
    "NoneType": "null",
}
_EXPECTED = "it must be text, a list of texts, token ids or a list of lists of token ids"


def num_items(value: Any) -> int:
    """How many items of lists there are to look at."""
    if not isinstance(value, list) or not value:
        return 0
    if not isinstance(value[0], list):
        return len(value)
    return sum(len(each) for each in value if isinstance(each, list))


def split_prompts(value: Any, max_prompts: int) -> list[Prompt]:
    """One prompt or several as a list; a flat list of integers is one prompt.

    Raises:
        ApiError: 400: it is neither, or there are too many.
    """
    if value is None or value in ("", []):
        raise ApiError(400, f"prompt is missing or empty: {_EXPECTED}", "prompt")
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise ApiError(400, f"prompt of type {_name(type(value))}: {_EXPECTED}", "prompt")
    kinds = kinds_of(value)
    if kinds == {int}:
        return [value]
    if kinds in ({str}, {list}) and len(value) > max_prompts:
        raise ApiError(
            400,
            f"{len(value)} prompts exceed the server's limit of {max_prompts}: send several "
            "requests",
            "prompt",
        )
    if kinds == {str}:
        return value
    if kinds == {list}:
        for prompt in value:
            inner = kinds_of(prompt)
            if inner != {int}:
                raise _mixed(inner)
        return value
    raise _mixed(kinds)


def _mixed(kinds: set[type]) -> ApiError:
    found = ", ".join(sorted(_name(kind) for kind in kinds)) or "nothing"
    return ApiError(400, f"prompt is a list that holds {found}: {_EXPECTED}", "prompt")


def _name(kind: type) -> str:
    return JSON_NAMES.get(kind.__name__, kind.__name__)
