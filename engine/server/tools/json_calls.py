"""Answers that are calls from the first character on: Llama's objects, and lists of calls."""

from collections.abc import Callable

from engine.server.tools.call_lists import CallList
from engine.server.tools.call_reader import CallReader
from engine.server.tools.parser import Delta, ToolParser, ToolStream

PYTHON_TAG = "<|python_tag|>"


class Llama3JsonParser(ToolParser):
    """Llama 3.1, 3.2 and 3.3: {"name": …, "parameters": {…}}, several with ";" between them."""

    name = "llama3_json"
    # <|python_tag|> may stand before the first call
    needs_special_tokens = True

    def stream(self) -> ToolStream:
        return LeadingCallsStream(self.new_id, (PYTHON_TAG, "{"), bracket="", separator=";")


class CallListParser(ToolParser):
    """An answer that was held to a list of calls (see constraint_for)."""

    name = "list"

    def stream(self) -> ToolStream:
        return LeadingCallsStream(self.new_id, ("[",), bracket="[", separator=",")


class LeadingCallsStream(ToolStream):
    """Calls at the beginning of an answer; if it does not begin so, all of it is content.

    Args:
        new_id: Makes the calls' ids.
        markers: With one of these, behind whitespace, such an answer begins.
        bracket, separator: See CallList. A marker that is neither the bracket nor "{" is passed
            over.
    """

    def __init__(
        self, new_id: Callable[[], str], markers: tuple[str, ...], bracket: str, separator: str
    ) -> None:
        super().__init__(new_id)
        self._markers = markers
        self._bracket = bracket
        self._separator = separator
        self._text = ""
        self._before = ""
        self._calls: CallList | None = None
        self._is_content = False

    def feed(self, text: str) -> list[Delta]:
        deltas: list[Delta] = []
        if self._calls is None and not self._is_content:
            self._text += text
            text = self._begin()
        at = 0
        if self._calls is not None:
            at = self._calls.feed(text, 0, deltas)
            if self._calls.is_over:
                self._end_calls(deltas)
        if self._is_content:
            self.show(text[at:], deltas)
        return deltas

    def finish(self) -> list[Delta]:
        deltas: list[Delta] = []
        if self._calls is not None:
            self._end_calls(deltas)
        elif not self._is_content:
            self.show(self._text, deltas)
        self.end_content(deltas)
        return deltas

    def _begin(self) -> str:
        """Decide what the answer is, if that can be said; the text to be read on."""
        bare = self._text.lstrip()
        marker = next((each for each in self._markers if bare.startswith(each)), None)
        if marker is None:
            if any(each.startswith(bare) for each in self._markers):
                return ""
            self._is_content = True
            return self._text
        self._calls = CallList(
            self, lambda: CallReader(needs_arguments=True), self._bracket, self._separator
        )
        skipped = 0 if len(marker) == 1 else len(marker)
        self._before = self._text[: len(self._text) - len(bare) + skipped]
        return bare[skipped:]

    def _end_calls(self, deltas: list[Delta]) -> None:
        """The list is over: what was no call is content, with all that stood before it."""
        assert self._calls is not None
        before = "" if self.num_calls else self._before
        self.show(before + self._calls.finish(), deltas)
        self._calls, self._is_content = None, True
