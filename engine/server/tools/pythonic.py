"""Calls written as Python: [weather(city="Paris"), clock()].

A call is known to be one only when its list is closed, so a list comes whole.
"""

import ast
import json
from collections.abc import Callable
from typing import Any

from engine.server.tools.parser import Delta, ToolParser, ToolStream

_QUOTES = "'\""


class PythonicParser(ToolParser):
    """Llama 3.2 and 4 in their pythonic form, ToolACE."""

    name = "pythonic"

    def stream(self) -> ToolStream:
        return _PythonicStream(self.new_id)


class _PythonicStream(ToolStream):
    def __init__(self, new_id: Callable[[], str]) -> None:
        super().__init__(new_id)
        self._text = ""
        self._is_content = False
        self._end = _ListEnd()

    def feed(self, text: str) -> list[Delta]:
        deltas: list[Delta] = []
        if self._is_content:
            self.show(text, deltas)
            return deltas
        start = len(self._text)
        self._text += text
        bare = self._text.lstrip()
        if bare and bare[0] != "[":
            self._show_all(self._text, deltas)
            return deltas
        end = self._end.find(self._text, start)
        if end is not None:
            self._read(end, deltas)
        return deltas

    def finish(self) -> list[Delta]:
        deltas: list[Delta] = []
        if not self._is_content:
            self._show_all(self._text, deltas)
        self.end_content(deltas)
        return deltas

    def _show_all(self, text: str, deltas: list[Delta]) -> None:
        self._is_content = True
        self.show(text, deltas)

    def _read(self, end: int, deltas: list[Delta]) -> None:
        calls = _calls_in(self._text[:end].strip())
        if calls is None:
            self._show_all(self._text, deltas)
            return
        for name, arguments in calls:
            deltas += [self.begin_call(name), self.more_arguments(arguments)]
        self._show_all(self._text[end:], deltas)


class _ListEnd:
    """Finds the bracket that closes the first one, outside of strings."""

    def __init__(self) -> None:
        self._depth = 0
        self._quote = ""
        self._escaped = False

    def find(self, text: str, start: int) -> int | None:
        """Where in `text` the list ends, looking from `start` on; None if it does not yet."""
        for at in range(start, len(text)):
            if self._take(text[at]):
                return at + 1
        return None

    def _take(self, char: str) -> bool:
        if self._escaped:
            self._escaped = False
        elif self._quote:
            if char == "\\":
                self._escaped = True
            elif char == self._quote:
                self._quote = ""
        elif char in _QUOTES:
            self._quote = char
        elif char in "[{(":
            self._depth += 1
        elif char in "]})":
            self._depth -= 1
            return self._depth == 0
        return False


def _calls_in(text: str) -> list[tuple[str, str]] | None:
    """(name, arguments as JSON text) of each call in a list of them; None if it is none."""
    try:
        body = ast.parse(text, mode="eval").body
        calls = body.elts if isinstance(body, ast.List) else []
        made = [_call(node) for node in calls]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return made or None


def _call(node: ast.expr) -> tuple[str, str]:
    """Raises ValueError where the node is not a call with values by name."""
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call with values by name")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("no name")
        arguments[keyword.arg] = ast.literal_eval(keyword.value)
    return ast.unparse(node.func), json.dumps(arguments, ensure_ascii=False, allow_nan=False)
