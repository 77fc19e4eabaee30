"""Calls of the Hermes and Qwen families: JSON objects between <tool_call> and </tool_call>."""

from collections.abc import Callable

from engine.server.tools.call_lists import call_deltas
from engine.server.tools.call_reader import CallReader
from engine.server.tools.content import find_marker
from engine.server.tools.parser import Delta, MarkedStream, ToolParser, ToolStream

BEGIN, END = "<tool_call>", "</tool_call>"


class HermesParser(ToolParser):
    """Hermes 2 Pro and 3, Qwen 2.5 and 3."""

    name = "hermes"

    def stream(self) -> ToolStream:
        return _HermesStream(self.new_id)


class _HermesStream(MarkedStream):
    def __init__(self, new_id: Callable[[], str]) -> None:
        super().__init__(new_id)
        self._reader: CallReader | None = None
        self._is_behind_call = False

    def finish(self) -> list[Delta]:
        deltas: list[Delta] = []
        if self._reader is None and not self._is_behind_call:
            self.show(self._text, deltas)
        elif self._reader is not None and not self._reader.has_begun:
            self.show(BEGIN + self._reader.raw, deltas)
        self.end_content(deltas)
        return deltas

    def _read(self, deltas: list[Delta]) -> bool:
        if self._reader is not None:
            return self._read_call(self._reader, deltas)
        # behind a call everything up to the next marker is markup
        markers = (END, BEGIN) if self._is_behind_call else (BEGIN,)
        end, marker = find_marker(self._text, markers)
        if not self._is_behind_call:
            self.show(self._text[:end], deltas)
        self._text = self._text[end + len(marker or "") :]
        if marker is None:
            return False
        self._is_behind_call = False
        if marker == BEGIN:
            self._reader = CallReader()
        return True

    def _read_call(self, reader: CallReader, deltas: list[Delta]) -> bool:
        self._text = self._text[reader.feed(self._text) :]
        deltas += call_deltas(self, reader)
        if not reader.is_over and not reader.is_bad:
            return False
        self._reader = None
        self._is_behind_call = reader.has_begun
        if not reader.has_begun:
            self.show(BEGIN + reader.raw, deltas)
        return True
