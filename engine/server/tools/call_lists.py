"""Reads calls that stand one after the other, with a separator and perhaps in brackets.

Used for the arrays of Mistral's models, for Llama's objects and for answers that were held to a
list of calls. Knows one list; what stands before and behind it is for whoever reads it.
"""

from collections.abc import Callable

from engine.server.tools.call_reader import CallReader
from engine.server.tools.parser import CallDelta, Delta, ToolStream

_SPACE = " \t\r\n"


class CallList:
    """One list of calls.

    Args:
        owner: Numbers the calls.
        make_reader: Reads one of them.
        bracket: "[" where the list stands in brackets, otherwise "".
        separator: Between two calls.

    Attributes:
        is_over: Whether it has ended: by its bracket, or by a character that does not belong there.
        raw: What it has read since the last call, to be shown if that was no call.
    """

    def __init__(
        self,
        owner: ToolStream,
        make_reader: Callable[[], CallReader],
        bracket: str = "[",
        separator: str = ",",
    ) -> None:
        self._owner = owner
        self._make_reader = make_reader
        self._separator = separator
        self._has_bracket = bool(bracket)
        # the characters that may come, and whether a call may begin
        self._awaited = bracket
        self._may_begin = not bracket
        self._reader: CallReader | None = None
        self.raw = ""
        self.is_over = False

    def feed(self, text: str, start: int, deltas: list[Delta]) -> int:
        """Read on and add what there is; where in `text` the list ended, or the text's length."""
        at = start
        while at < len(text) and not self.is_over:
            at = self._read(text, at, deltas) if self._reader else self._between(text, at)
        return at

    def finish(self) -> str:
        """The text is over: what belongs to no call, to be shown."""
        reader = self._reader
        if reader is not None and not reader.has_begun:
            return self.raw + reader.raw
        return self.raw

    def _between(self, text: str, at: int) -> int:
        char = text[at]
        if char in _SPACE:
            pass
        elif char == "{" and self._may_begin:
            self._reader = self._make_reader()
            return at
        elif char == self._awaited and char == "[":
            self._awaited, self._may_begin = "]", True
        elif char == self._separator and not self._may_begin and self._awaited != "[":
            self._may_begin = True
        elif char == "]" and self._awaited == "]":
            self.raw = ""
            self.is_over = True
            return at + 1
        else:
            self.is_over = True
            return at
        self.raw += char
        return at + 1

    def _read(self, text: str, at: int, deltas: list[Delta]) -> int:
        reader = self._reader
        assert reader is not None
        at = reader.feed(text, at)
        deltas += call_deltas(self._owner, reader)
        if reader.is_bad:
            self.is_over = True
            self.raw = "" if reader.has_begun else self.raw + reader.raw
            self._reader = None
        elif reader.is_over:
            self._reader = None
            self._may_begin = False
            self.raw = ""
        return at


def call_deltas(owner: ToolStream, reader: CallReader) -> list[CallDelta]:
    """The pieces of a call that a reader has ready."""
    name, arguments = reader.take()
    deltas = [] if name is None else [owner.begin_call(name)]
    if arguments:
        deltas.append(owner.more_arguments(arguments))
    return deltas
