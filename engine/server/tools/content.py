"""The text beside the calls: what may be shown of it, and what could still become a marker.

Knows markers and whitespace; knows no call.
"""


class Content:
    """Text on its way to the user.

    Whitespace around calls belongs to the markup. So at the beginning, and behind a call, it is
    held back until text follows; an answer without calls is shown to the letter.
    """

    def __init__(self) -> None:
        self._held = ""
        self._holds_space = True
        self._has_calls = False

    def show(self, text: str) -> str:
        """What may be shown of new text."""
        if not self._holds_space:
            return text
        self._held += text
        if not self._held.strip():
            return ""
        self._holds_space = False
        return self.finish_held()

    def note_call(self) -> None:
        """A call has begun: whitespace before it, and behind it, is markup."""
        self._held = ""
        self._holds_space = True
        self._has_calls = True

    def finish(self) -> str:
        """The text is over: what was held back."""
        held = self.finish_held()
        return "" if self._has_calls and not held.strip() else held

    def finish_held(self) -> str:
        """What was held back, which is held no longer."""
        held, self._held = self._held, ""
        return held


def find_marker(text: str, markers: tuple[str, ...]) -> tuple[int, str | None]:
    """(where the first marker begins, which one), or (what may be shown, None).

    The end of the text that could be the beginning of a marker may not be shown.
    """
    found = [(at, marker) for marker in markers if (at := text.find(marker)) >= 0]
    if found:
        return min(found)
    longest = max(_overlap(text, marker) for marker in markers)
    return len(text) - longest, None


def _overlap(text: str, marker: str) -> int:
    """Characters at the end of the text with which the marker begins."""
    for size in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:size]):
            return size
    return 0
