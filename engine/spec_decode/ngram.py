"""Draft tokens from the text so far: what followed the last few tokens where they stood before.

Prompt lookup (A. Saxena, "Prompt Lookup Decoding", 2023): no second model, good where an answer
repeats its prompt. Knows token ids only; whether a draft is right is the verification's business.
"""

import numpy as np

from workbench.errors import ConfigError


class NgramProposer:
    """Looks for an earlier place where the last n tokens stand, for n from max_n down to min_n.

    Args:
        k: Most draft tokens.
        min_n, max_n: Shortest and longest n-gram to look for, tokens.
    """

    def __init__(self, k: int, min_n: int = 2, max_n: int = 4) -> None:
        if k < 1:
            raise ConfigError(f"k={k} draft tokens: at least 1 is needed")
        if not 1 <= min_n <= max_n:
            raise ConfigError(f"min_n={min_n} and max_n={max_n} must satisfy 1 <= min_n <= max_n")
        self.k = k
        self.min_n = min_n
        self.max_n = max_n

    def propose(self, token_ids: np.ndarray) -> list[int]:
        """At most k tokens that followed the first earlier place of the longest n-gram found.

        The first place and not the last one: where a text repeats itself, more of its continuation
        is known there.

        Args:
            token_ids: [length] integers, prompt and answer so far.
        """
        for n in range(min(self.max_n, len(token_ids) - 1), self.min_n - 1, -1):
            start = _first_match(token_ids, n)
            if start is not None:
                drafts: list[int] = token_ids[start + n : start + n + self.k].tolist()
                return drafts
        return []


def _first_match(token_ids: np.ndarray, n: int) -> int | None:
    """First start of the last n tokens before their own place; None if there is none."""
    num_starts = len(token_ids) - n
    last = token_ids[-n:]
    # The rarest test first would be better still; the last token of the n-gram is as good as any.
    starts = np.flatnonzero(token_ids[n - 1 : -1] == last[-1])
    for offset in range(n - 2, -1, -1):
        if not len(starts):
            return None
        starts = starts[token_ids[starts + offset] == last[offset]]
    assert not len(starts) or starts[0] < num_starts
    return int(starts[0]) if len(starts) else None
