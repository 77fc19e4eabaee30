"""The text of one answer as it grows, and the stop strings that may end it.

Knows which characters may be shown: not those that could still turn out to be a stop string. Knows
no token that ends an answer, and no request.
"""

from collections.abc import Sequence

from engine.detokenizer import IncrementalDecoder


class AnswerText:
    """Collects text piece by piece; constant work a token.

    Args:
        decoder: Makes text of the tokens.
        stop: Strings that end the answer.
        include_stop: Keep the stop string in the text.
        min_tokens: Stop strings that end within that many first tokens do not count.
    """

    __slots__ = (
        "_decoder",
        "_held_back",
        "_include_stop",
        "_length",
        "_longest",
        "_min_tokens",
        "_num_shown",
        "_num_tokens",
        "_pieces",
        "_stop",
        "_tail",
    )

    def __init__(
        self,
        decoder: IncrementalDecoder,
        stop: Sequence[str] = (),
        include_stop: bool = False,
        min_tokens: int = 0,
    ) -> None:
        self._decoder = decoder
        self._stop = stop
        self._include_stop = include_stop
        self._min_tokens = min_tokens
        self._longest = max(map(len, stop), default=1)
        self._held_back = 0 if include_stop else self._longest - 1
        self._pieces: list[str] = []
        self._length = 0
        self._num_tokens = 0
        self._num_shown = 0
        # The last characters, as many as a stop string may have before the next piece.
        self._tail = ""

    def append(self, token_ids: Sequence[int]) -> tuple[int, str | None]:
        """Take in tokens up to the one that completes a stop string.

        Returns:
            Number of tokens taken, and the stop string or None. After a stop string the text is
            complete.
        """
        if not self._stop:
            self._num_tokens += len(token_ids)
            self._add(self._decoder.decode(token_ids))
            return len(token_ids), None
        for num_taken, token_id in enumerate(token_ids, 1):
            self._num_tokens += 1
            stop = self._add_and_look(self._decoder.decode((token_id,)))
            if stop is not None:
                return num_taken, stop
        return len(token_ids), None

    def finish(self) -> None:
        """The answer has ended, but not by a stop string: the rest of the text."""
        self._add(self._decoder.flush())

    def text(self, is_finished: bool) -> str:
        """What may be shown of the text so far."""
        return self._join()[: self._num_showable(is_finished)]

    def new_text(self, is_finished: bool) -> str:
        """What may be shown and has not been returned by this method."""
        start, end = self._num_shown, self._num_showable(is_finished)
        if end <= start:
            return ""
        self._num_shown = end
        # only the last piece is cut: what was shown is dropped
        text = self._join()
        offset = self._length - len(text)
        self._pieces = [text[end - offset :]]
        return text[start - offset : end - offset]

    def _num_showable(self, is_finished: bool) -> int:
        return self._length if is_finished else max(self._length - self._held_back, 0)

    def _join(self) -> str:
        """The pieces as one, which is kept."""
        if len(self._pieces) != 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def _add(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            self._length += len(piece)

    def _add_and_look(self, piece: str) -> str | None:
        """Add a piece; the stop string that it completes first, and then the text ends there."""
        if not piece:
            return None
        start = self._length - len(self._tail)
        window = self._tail + piece
        found = None
        if self._num_tokens > self._min_tokens:
            found = self._find(window, len(self._tail))
        self._add(piece)
        if found is None:
            self._tail = window[max(len(window) - self._longest + 1, 0) :]
            return None
        place, stop = found
        self._cut(start + place + (len(stop) if self._include_stop else 0))
        return stop

    def _find(self, window: str, num_old: int) -> tuple[int, str] | None:
        """Where a stop string stands that ends behind `num_old` characters, and which.

        Of several the one that ends first; of those that end together the first in the list.
        """
        best: tuple[int, str] | None = None
        for stop in self._stop:
            place = window.find(stop, max(num_old - len(stop) + 1, 0))
            if place >= 0 and (best is None or place + len(stop) < best[0] + len(best[1])):
                best = place, stop
        return best

    def _cut(self, length: int) -> None:
        text = self._join()
        self._pieces = [text[: len(text) - (self._length - length)]]
        self._length = length
