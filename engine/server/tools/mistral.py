"""Calls of Mistral's models: [TOOL_CALLS], then an array of calls or names with arguments."""

import re
import secrets
import string
from collections.abc import Callable

from engine.server.tools.call_lists import CallList
from engine.server.tools.call_reader import CallReader, ValueScanner
from engine.server.tools.content import find_marker
from engine.server.tools.parser import Delta, MarkedStream, ToolParser, ToolStream

BEGIN = "[TOOL_CALLS]"
ID_LENGTH = 9
MAX_HEADER = 512
_HEADER = re.compile(r"\s*([\w.\-]+)(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*")
_LETTERS = string.ascii_letters + string.digits


class MistralParser(ToolParser):
    """Mistral 7B v0.3 to Large ([{"name": …, "arguments": {…}}]), and later ones (name{…})."""

    name = "mistral"
    needs_special_tokens = True

    def new_id(self) -> str:
        """Nine letters and digits, which is what Mistral's chat templates take."""
        return "".join(secrets.choice(_LETTERS) for _ in range(ID_LENGTH))

    def stream(self) -> ToolStream:
        return _MistralStream(self.new_id)


class _MistralStream(MarkedStream):
    def __init__(self, new_id: Callable[[], str]) -> None:
        super().__init__(new_id)
        self._read_part: Callable[[list[Delta]], bool] = self._read_content
        self._calls: CallList | None = None
        self._arguments = ValueScanner()

    def finish(self) -> list[Delta]:
        deltas: list[Delta] = []
        if self._calls is not None:
            self._show_rest(self._calls.finish(), deltas)
        elif self._read_part == self._read_header:
            self._show_rest(self._text, deltas)
        elif self._read_part == self._read_content:
            self.show(self._text, deltas)
        self.end_content(deltas)
        return deltas

    def _read(self, deltas: list[Delta]) -> bool:
        return self._read_part(deltas)

    def _show_rest(self, text: str, deltas: list[Delta]) -> None:
        """Show what was no call, with the marker if there has been no call at all."""
        self.show(text if self.num_calls else BEGIN + text, deltas)

    def _read_content(self, deltas: list[Delta]) -> bool:
        end, marker = find_marker(self._text, (BEGIN,))
        self.show(self._text[:end], deltas)
        self._text = self._text[end + len(marker or "") :]
        if marker is not None:
            self._read_part = self._read_header
        return marker is not None

    def _read_header(self, deltas: list[Delta]) -> bool:
        """Behind the marker: an array, or a name up to its arguments."""
        bare = self._text.lstrip()
        if not bare:
            return False
        if bare[0] == "[":
            self._calls = CallList(self, CallReader)
            self._read_part = self._read_array
            return True
        end = self._text.find("{")
        if end < 0 and len(self._text) <= MAX_HEADER:
            return False
        header = _HEADER.fullmatch(self._text, 0, end) if end >= 0 else None
        if header is None:
            self._show_rest("", deltas)
            self._read_part = self._read_content
            return True
        deltas.append(self.begin_call(header[1]))
        self._text = self._text[end:]
        self._arguments = ValueScanner()
        self._read_part = self._read_arguments
        return True

    def _read_arguments(self, deltas: list[Delta]) -> bool:
        end = self._arguments.feed(self._text, 0)
        if end:
            deltas.append(self.more_arguments(self._text[:end]))
        self._text = self._text[end:]
        if self._arguments.is_over:
            self._read_part = self._read_content
        return self._arguments.is_over

    def _read_array(self, deltas: list[Delta]) -> bool:
        calls = self._calls
        assert calls is not None
        self._text = self._text[calls.feed(self._text, 0, deltas) :]
        if calls.is_over:
            self._show_rest(calls.finish(), deltas)
            self._calls = None
            self._read_part = self._read_content
        return calls.is_over
