"""The grammar of a request in a replay: it ends the answer where the recorded one did.

Which tokens may come is of no interest there, as they are known. Knows no grammar.
"""

import numpy as np

from workbench.structured_output import ALL_TOKENS


class RecordedGrammar:
    """A workbench.structured_output.Grammar.

    Args:
        num_tokens: Tokens of the answer at which the grammar ended it; None: it did not.
        reason: Why it could not go on; None: it was complete.
    """

    def __init__(self, num_tokens: int | None = None, reason: str | None = None) -> None:
        self._end = num_tokens
        self._reason = reason
        self._num_tokens = 0
        self._has_failed = False

    @property
    def num_words(self) -> int:
        """Words of a row of the bitmask: there is no vocabulary."""
        return 1

    @property
    def is_complete(self) -> bool:
        """Whether the recorded answer ended here."""
        return self._num_tokens == self._end

    @property
    def failure(self) -> str | None:
        """Why the recorded answer broke off here."""
        return self._reason if self._has_failed else None

    def fill_bitmask(self, row: np.ndarray, num_tokens_left: int) -> None:
        """Allow everything."""
        row[:] = ALL_TOKENS

    def accept_token(self, token_id: int) -> bool:
        """Go on by one token."""
        self._has_failed = self._reason is not None and self._num_tokens + 1 == self._end
        self._num_tokens += not self._has_failed
        return not self._has_failed

    def rollback(self, num_tokens: int) -> None:
        """Take back the last tokens that were accepted."""
        self._num_tokens -= num_tokens
