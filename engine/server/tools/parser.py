"""What every tool parser gives: content and calls, whole or piece by piece.

A family's parser is one machine that takes text in pieces; a whole answer is one piece. So both
ways agree by construction, however the text is cut. Knows no model family and no HTTP.
"""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.server.tools.content import Content


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call.

    Attributes:
        id: Unique; as the family's chat template takes it.
        name: The function.
        arguments: JSON text, as the model wrote it; cut off where the answer was.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A piece of one call, as OpenAI streams it.

    Attributes:
        index: Which call, from 0.
        id, name: With the first piece of a call only, otherwise None.
        arguments: What is new of the JSON text.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


Delta = str | CallDelta
"""New content, or a piece of a call."""


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A whole answer.

    Attributes:
        content: The text beside the calls; None if there is none but calls.
        tool_calls: In order.
    """

    content: str | None
    tool_calls: list[ToolCall]


class ToolStream(ABC):
    """Reads one answer as it comes.

    Attributes:
        num_calls: Calls that have begun.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._content = Content()
        self.num_calls = 0

    @abstractmethod
    def feed(self, text: str) -> list[Delta]:
        """Take in new text; what it adds to the answer."""

    @abstractmethod
    def finish(self) -> list[Delta]:
        """The text is over: what was held back."""

    def begin_call(self, name: str) -> CallDelta:
        """The first piece of the next call."""
        self._content.note_call()
        self.num_calls += 1
        return CallDelta(self.num_calls - 1, self._new_id(), name)

    def more_arguments(self, text: str) -> CallDelta:
        """A further piece of the call that began last."""
        return CallDelta(self.num_calls - 1, arguments=text)

    def show(self, text: str, deltas: list[Delta]) -> None:
        """Add new content, as far as it may be shown."""
        if shown := self._content.show(text):
            deltas.append(shown)

    def end_content(self, deltas: list[Delta]) -> None:
        """Add what was held back of the content."""
        if shown := self._content.finish():
            deltas.append(shown)


class MarkedStream(ToolStream):
    """A ToolStream that goes from marker to marker; `_text` is what it has not read yet."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        super().__init__(new_id)
        self._text = ""

    def feed(self, text: str) -> list[Delta]:
        self._text += text
        deltas: list[Delta] = []
        while self._read(deltas):
            pass
        return deltas

    @abstractmethod
    def _read(self, deltas: list[Delta]) -> bool:
        """Go on by one part of the text; False if that takes more of it."""


class ToolParser(ABC):
    """Reads the answers of one family of models.

    Attributes:
        name: As in vLLM's --tool-call-parser.
        needs_special_tokens: Whether the text must be made with skip_special_tokens=False, because
            a special token begins the calls.
    """

    name: str
    needs_special_tokens = False

    @abstractmethod
    def stream(self) -> ToolStream:
        """Reads one answer as it comes."""

    def new_id(self) -> str:
        """An id for a call."""
        return f"chatcmpl-tool-{secrets.token_hex(16)}"

    def parse(self, text: str) -> ParsedAnswer:
        """Read a whole answer."""
        stream = self.stream()
        return gather([*stream.feed(text), *stream.finish()])


@dataclass(slots=True)
class _Growing:
    id: str
    name: str
    pieces: list[str] = field(default_factory=list)


def gather(deltas: Sequence[Delta]) -> ParsedAnswer:
    """The answer that deltas add up to."""
    content: list[str] = []
    calls: list[_Growing] = []
    for delta in deltas:
        if isinstance(delta, str):
            content.append(delta)
            continue
        if delta.id is not None:
            calls.append(_Growing(delta.id, delta.name or ""))
        calls[delta.index].pieces.append(delta.arguments)
    text = "".join(content)
    return ParsedAnswer(
        text if text or not calls else None,
        [ToolCall(call.id, call.name, "".join(call.pieces)) for call in calls],
    )
