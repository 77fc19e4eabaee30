"""The state of one answer within a grammar that llguidance matches.

Knows which tokens may come next, and when only the end may. Knows no request and no batch.
"""

import numpy as np
from llguidance import LLMatcher

from engine.structured_output.vocabulary import BYTES_PER_WORD, Vocabulary, one_line
from engine.structured_output.wrap_up import Closing, WrapUp
from workbench.structured_output import ALL_TOKENS


class LLGrammar:
    """A workbench.structured_output.Grammar.

    Args:
        matcher: At its beginning; of this answer alone.
        vocabulary: The model's.
        wrap_up: Closes the answer in time; None: nothing does.
        num_tokens_before_end: Tokens before which the answer ends only where nothing else is left;
            None: at any length (the end-of-sequence token is passed over).
    """

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary: Vocabulary,
        wrap_up: WrapUp | None = None,
        num_tokens_before_end: int | None = 0,
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._closing = None if wrap_up is None else Closing(wrap_up)
        self._num_before_end = num_tokens_before_end
        self._token_ids: list[int] = []
        self._failure: str | None = None
        self._buffer: np.ndarray | None = None
        if len(vocabulary.new_buffer()) != vocabulary.num_words:
            self._buffer = vocabulary.new_buffer()

    @property
    def num_words(self) -> int:
        """Words of a row of the bitmask."""
        return self._vocabulary.num_words

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end of the answer may follow."""
        return self._failure is None and bool(self._matcher.is_stopped())

    @property
    def failure(self) -> str | None:
        """Why it cannot go on, in one line; None while it can."""
        return self._failure

    @property
    def token_ids(self) -> list[int]:
        """Tokens accepted so far. Read only."""
        return self._token_ids

    def fill_bitmask(self, row: np.ndarray, num_tokens_left: int) -> None:
        """Say which tokens may come next; see Grammar."""
        if self._failure is not None:
            row[:] = ALL_TOKENS
            return
        may_end = self._may_end
        if self._closing is not None:
            forced = self._closing.next_token(
                self._matcher, self._token_ids, num_tokens_left, may_end
            )
            if forced is not None:
                row[:] = 0
                row[forced >> 5] = np.uint32(1 << (forced & 31)).view(np.int32)
                return
        self._compute(row)
        if self._matcher.is_error():
            self._fail(self._matcher.get_error())
            row[:] = ALL_TOKENS
        elif not may_end:
            others = row & ~self._vocabulary.eos_bits
            if others.any():
                row[:] = others

    def accept_token(self, token_id: int) -> bool:
        """Go on by one token; see Grammar."""
        if self._failure is not None:
            return False
        if not self._matcher.consume_token(token_id):
            self._fail(self._matcher.get_error() or f"token {token_id} does not belong there")
            return False
        self._token_ids.append(token_id)
        return True

    def rollback(self, num_tokens: int) -> None:
        """Take back the last tokens that were accepted."""
        if not num_tokens:
            return
        self._matcher.rollback(num_tokens)
        del self._token_ids[-num_tokens:]
        if self._closing is not None:
            self._closing.look_again()

    @property
    def _may_end(self) -> bool:
        return self._num_before_end is not None and len(self._token_ids) >= self._num_before_end

    def _fail(self, reason: str) -> None:
        self._failure = f"the grammar of structured_outputs cannot go on: {one_line(reason)}"

    def _compute(self, row: np.ndarray) -> None:
        """Let llguidance write the row."""
        target = row if self._buffer is None else self._buffer
        self._matcher.unsafe_compute_mask_ptr(target.ctypes.data, len(target) * BYTES_PER_WORD)
        if self._buffer is not None:
            row[:] = self._buffer[: len(row)]
        known = self._vocabulary.known_bits
        if known is not None:
            row &= known
