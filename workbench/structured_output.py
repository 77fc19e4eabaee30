"""What the core knows of a grammar: which tokens may come next, and what becomes of those that do.

The state of a request's answer within its grammar belongs to the request, through preemptions and
beyond. Who compiles grammars, and for which tokenizer, is the world's affair.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

BITS_PER_WORD = 32
ALL_TOKENS = -1
"""As a word of a bitmask."""


class Grammar(Protocol):
    """Where one answer stands within its grammar."""

    @property
    def num_words(self) -> int:
        """Words of a row of the bitmask: the vocabulary / 32, rounded up."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end of the answer may follow."""
        ...

    @property
    def failure(self) -> str | None:
        """Why it cannot go on, in one line; None while it can."""
        ...

    def fill_bitmask(self, row: np.ndarray, num_tokens_left: int) -> None:
        """Say which tokens may come next.

        Args:
            row: [num_words] int32, written: bit i % 32 of word i // 32 is set if token i may come.
                Where the grammar fails, every bit is.
            num_tokens_left: Tokens that the answer may still have, at least 1.
        """
        ...

    def accept_token(self, token_id: int) -> bool:
        """Go on by one token; False, and `failure` says why, if it does not belong there."""
        ...

    def rollback(self, num_tokens: int) -> None:
        """Take back the last tokens that were accepted."""
        ...


@dataclass(frozen=True, slots=True)
class GrammarOutput:
    """The tokens that the rows of a step may sample, where a grammar says so.

    Attributes:
        request_ids: The requests with a grammar that sample in the step, in batch order.
        num_rows: Rows of each: one for every draft and one more.
        bitmask: [sum(num_rows), ceil(vocabulary / 32)] int32: bit i % 32 of word i // 32 is set if
            token i is allowed. The row behind a draft that its grammar forbids allows everything:
            what is sampled there is never kept.
    """

    request_ids: list[str]
    num_rows: list[int]
    bitmask: np.ndarray

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        """(request id, its rows of the bitmask) in batch order."""
        start = 0
        for request_id, count in zip(self.request_ids, self.num_rows, strict=True):
            yield request_id, self.bitmask[start : start + count]
            start += count


def is_allowed(row: np.ndarray, token_id: int) -> bool:
    """Whether a row of a bitmask allows a token; not one that lies behind the row."""
    word, bit = divmod(token_id, BITS_PER_WORD)
    return word < len(row) and bool(int(row[word]) >> bit & 1)


def allowed_token_ids(row: np.ndarray) -> np.ndarray:
    """The tokens that a row of a bitmask allows, [n] int64 in order."""
    return np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))
