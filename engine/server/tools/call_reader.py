"""Reads one call, a JSON object with a name and arguments, from text that comes in pieces.

The arguments are handed on as they come once the name is known. Knows JSON's brackets and strings;
whether the arguments are good JSON in every detail is for whoever uses them.
"""

import json
import re
from enum import Enum, auto

NAME_KEYS = ("name",)
ARGUMENT_KEYS = ("arguments", "parameters")
_SPACE = " \t\r\n"
_STRING_STOP = re.compile(r'["\\]')
_STRUCTURE = re.compile(r'["{}\[\]]')
_SCALAR_END = re.compile(r"[,}\]\s]")


class ValueScanner:
    """Finds the end of one JSON object or array: the bracket that closes the first."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.is_over = False

    def feed(self, text: str, start: int) -> int:
        """Where the value ends in `text` from `start` on, or the text's length."""
        at, end = start, len(text)
        while at < end and not self.is_over:
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (_STRING_STOP if self._in_string else _STRUCTURE).search(text, at)
            if found is None:
                return end
            at = found.end()
            self._take(found.group())
        return at

    def _take(self, char: str) -> None:
        if char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = not self._in_string
        elif char in "{[":
            self._depth += 1
        else:
            self._depth -= 1
            self.is_over = self._depth == 0


class _Expect(Enum):
    """What the reader waits for."""

    OBJECT = auto()
    KEY = auto()
    KEY_TEXT = auto()
    COLON = auto()
    VALUE = auto()
    NAME_TEXT = auto()
    ARGUMENTS = auto()
    OTHER_TEXT = auto()
    OTHER_BRACKETS = auto()
    OTHER_SCALAR = auto()
    COMMA = auto()


class CallReader:
    """One call.

    Args:
        needs_arguments: An object without them is no call; otherwise it has none to give: {}.

    Attributes:
        raw: All that it has read while it could still be no call.
        name: The function, once known.
        has_begun: Whether it is a call for sure; then it stays one, whatever comes.
        is_over: Whether the object is closed.
        is_bad: Whether it is none.
    """

    def __init__(self, needs_arguments: bool = False) -> None:
        self._needs_arguments = needs_arguments
        self._expect = _Expect.OBJECT
        self._text: list[str] = []
        self._key = ""
        self._escaped = False
        self._scanner = ValueScanner()
        self._arguments: list[str] = []
        self._has_arguments = False
        self._is_told = False
        self.raw = ""
        self.name: str | None = None
        self.has_begun = False
        self.is_over = False
        self.is_bad = False

    def feed(self, text: str, start: int = 0) -> int:
        """Read on; where in `text` the reader stopped: behind the object, or at the end."""
        at = start
        while at < len(text) and not self.is_over and not self.is_bad:
            at = self._step(text, at)
        if not self.has_begun:
            self.raw += text[start:at]
        return at

    def take(self) -> tuple[str | None, str]:
        """(the name if it has just become known that this is a call, new text of the arguments)."""
        if not self.has_begun:
            return None, ""
        name = None if self._is_told else self.name
        self._is_told = True
        arguments = "".join(self._arguments)
        self._arguments.clear()
        return name, arguments

    def _step(self, text: str, at: int) -> int:
        expect = self._expect
        if expect is _Expect.ARGUMENTS or expect is _Expect.OTHER_BRACKETS:
            return self._brackets(text, at)
        if expect in (_Expect.KEY_TEXT, _Expect.NAME_TEXT, _Expect.OTHER_TEXT):
            return self._string(text, at)
        if expect is _Expect.OTHER_SCALAR:
            found = _SCALAR_END.search(text, at)
            if found is None:
                return len(text)
            self._expect = _Expect.COMMA
            return found.start()
        if text[at] in _SPACE:
            return at + 1
        self._structure(text[at])
        # a bracket belongs to the value that it opens
        return at if self._expect in (_Expect.ARGUMENTS, _Expect.OTHER_BRACKETS) else at + 1

    def _structure(self, char: str) -> None:
        """One character between the values."""
        expect = self._expect
        if expect is _Expect.OBJECT and char == "{":
            self._expect = _Expect.KEY
        elif expect is _Expect.KEY and char == '"':
            self._begin_string(_Expect.KEY_TEXT)
        elif expect is _Expect.COLON and char == ":":
            self._expect = _Expect.VALUE
        elif expect is _Expect.VALUE:
            self._begin_value(char)
        elif expect is _Expect.COMMA and char == ",":
            self._expect = _Expect.KEY
        elif expect is _Expect.COMMA and char == "}":
            self._close()
        else:
            self.is_bad = True

    def _begin_value(self, char: str) -> None:
        is_name = self._key in NAME_KEYS and self.name is None
        is_arguments = self._key in ARGUMENT_KEYS and not self._has_arguments
        if is_name and char == '"':
            self._begin_string(_Expect.NAME_TEXT)
        elif is_arguments and char == "{":
            self._scanner = ValueScanner()
            self._has_arguments = True
            self.has_begun = self.name is not None
            self._expect = _Expect.ARGUMENTS
        elif is_name or is_arguments or char in ",}]:":
            self.is_bad = True
        elif char == '"':
            self._begin_string(_Expect.OTHER_TEXT)
        elif char in "{[":
            self._scanner = ValueScanner()
            self._expect = _Expect.OTHER_BRACKETS
        else:
            self._expect = _Expect.OTHER_SCALAR

    def _begin_string(self, expect: _Expect) -> None:
        self._text = ['"']
        self._escaped = False
        self._expect = expect

    def _brackets(self, text: str, at: int) -> int:
        end = self._scanner.feed(text, at)
        if self._expect is _Expect.ARGUMENTS:
            self._arguments.append(text[at:end])
        if self._scanner.is_over:
            self._expect = _Expect.COMMA
        return end

    def _string(self, text: str, at: int) -> int:
        if self._escaped:
            self._escaped = False
            self._text.append(text[at])
            return at + 1
        found = _STRING_STOP.search(text, at)
        end = len(text) if found is None else found.end()
        self._text.append(text[at:end])
        if found is not None and found.group() == "\\":
            self._escaped = True
        elif found is not None:
            self._end_string("".join(self._text))
        return end

    def _end_string(self, quoted: str) -> None:
        try:
            value = json.loads(quoted, strict=False)
        except ValueError:
            self.is_bad = True
            return
        if self._expect is _Expect.KEY_TEXT:
            self._key = value
            self._expect = _Expect.COLON
            return
        if self._expect is _Expect.NAME_TEXT:
            self.name = value
            self.is_bad = not value
            self.has_begun = self._has_arguments and not self.is_bad
        self._expect = _Expect.COMMA

    def _close(self) -> None:
        if self.name is None or (self._needs_arguments and not self._has_arguments):
            self.is_bad = True
            return
        if not self._has_arguments:
            self._arguments.append("{}")
        self.has_begun = self.is_over = True
