"""Finds tokens that bring a JSON answer to its end from where it stands, and few of them.

The grammar says what may come; here is only a sense of direction: close what is open, prefer the
shorter value, and where letters must be found (a pattern, a choice of keys) try a few ways. Knows
JSON's punctuation and a matcher; knows no limit on tokens.
"""

import re
from collections.abc import Sequence
from random import Random

from llguidance import LLMatcher

from engine.structured_output.vocabulary import BYTES_PER_WORD, Vocabulary
from workbench.structured_output import allowed_token_ids, is_allowed

MAX_TOKENS = 1024
MAX_STEPS = 3000
"""Most steps that one search may take."""
NUM_WAYS = 6
CLOSERS = "}],:"
OUTSIDE = '1234567890."ntf[{-+eE'
"""What is tried outside of strings where nothing can be closed, best first."""
LETTERS = "a1A0-_.:/@ "
ESCAPED = 'n"\\0123456789abcdefABCDEF'
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


class Completion:
    """Searches for ends.

    Args:
        vocabulary: The model's tokens.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def find(
        self,
        matcher: LLMatcher,
        token_ids: Sequence[int],
        enough: int = 0,
        limit: int = MAX_TOKENS,
    ) -> list[int] | None:
        """Tokens after which the answer is complete, the one that ends it included if it needs one.

        Args:
            matcher: Of the answer; left as it is.
            token_ids: The answer.
            enough: A way of so many tokens need not be made shorter.
            limit: Longer ways are of no use.

        Returns:
            None: No end was found.
        """
        text = self._vocabulary.ll.decode_bytes(list(token_ids))
        best: list[int] | None = None
        num_steps = 0
        for way in range(NUM_WAYS):
            walk = _Walk(self._vocabulary, matcher.deep_copy(), text, way)
            tokens = walk.to_end(limit if best is None else len(best) - 1)
            best = best if tokens is None else tokens
            num_steps += walk.num_steps
            is_enough = best is not None and len(best) <= enough
            if is_enough or not walk.had_choice or num_steps > MAX_STEPS:
                break
        return best


class _Walk:
    """One way to an end.

    Args:
        vocabulary: The model's tokens.
        matcher: A copy, to walk with.
        text: The answer.
        way: 0: the best character first; further ones draw characters by chance.

    Attributes:
        num_steps: Steps taken.
        had_choice: Whether another way could be shorter.
    """

    def __init__(self, vocabulary: Vocabulary, matcher: LLMatcher, text: bytes, way: int) -> None:
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._quotes = _Quotes(text)
        self._random = Random(way) if way else None
        self._row = vocabulary.new_buffer()
        self._tokens: list[int] = []
        self.num_steps = 0
        self.had_choice = False

    def to_end(self, limit: int) -> list[int] | None:
        """The tokens of the way; None if there are more than `limit`, or it leads nowhere."""
        while len(self._tokens) <= limit and self.num_steps <= MAX_STEPS:
            if self._matcher.is_accepting():
                ends = () if self._matcher.is_stopped() else self._vocabulary.eos_token_ids[:1]
                way = [*self._tokens, *ends]
                return way if len(way) <= limit else None
            self.num_steps += 1
            if not self._step():
                return None
        return None

    def _step(self) -> bool:
        """Go on by a few characters; False if there is no way."""
        forced = self._matcher.compute_ff_bytes()
        if forced and self._take(self._vocabulary.ll.tokenize_bytes(forced)):
            return True
        quotes = self._quotes
        if quotes.is_escaped:
            return self._try_each(ESCAPED)
        if quotes.is_open:
            return self._try_each('"') or self._find_letter()
        if self._try_each(CLOSERS):
            return True
        if self._random is None and self._try_each(OUTSIDE):
            return True
        return self._draw()

    def _try_each(self, chars: str) -> bool:
        """Go on by the first of some characters that may come; False if none may."""
        of = self._vocabulary.single_characters
        return any(char in of and self._take([of[char]]) for char in chars)

    def _find_letter(self) -> bool:
        """Go on within a string that may not be closed yet."""
        self.had_choice = True
        if self._random is not None:
            return self._draw()
        # in turns, so that something like "@" is found behind any number of letters
        turn = len(self._tokens) % len(LETTERS)
        return self._try_each(LETTERS[turn:] + LETTERS[:turn]) or self._draw()

    def _take(self, token_ids: list[int]) -> bool:
        count = self._matcher.try_consume_tokens(token_ids)
        taken = token_ids[:count]
        self._tokens += taken
        self._quotes.feed(self._vocabulary.ll.decode_bytes(taken))
        return bool(count)

    def _draw(self) -> bool:
        """Go on by a character by chance, or else by any token; False if none may come."""
        row, vocabulary = self._row, self._vocabulary
        self._matcher.unsafe_compute_mask_ptr(row.ctypes.data, len(row) * BYTES_PER_WORD)
        if self._matcher.is_error():
            return False
        random = self._random or Random(0)
        kinds: dict[str, list[int]] = {}
        for char, token_id in vocabulary.single_characters.items():
            if is_allowed(row, token_id):
                kinds.setdefault(_kind(char), []).append(token_id)
        if kinds:
            # something rare, like "@", is as likely as all letters together
            return self._take([random.choice(kinds[random.choice(sorted(kinds))])])
        self.had_choice = True
        ends, size = vocabulary.eos_token_ids, vocabulary.vocab_size
        others = [i for i in allowed_token_ids(row).tolist() if i not in ends and i < size]
        return bool(others) and self._take([random.choice(others)])


def _kind(char: str) -> str:
    if char.isdigit():
        return "0"
    if char.isalpha():
        return "a" if char.islower() else "A"
    return char


class _Quotes:
    """Whether a JSON text stands within a string."""

    def __init__(self, text: bytes) -> None:
        rest = _STRINGS.sub(b"", text)
        start = rest.find(b'"')
        self.is_open = start >= 0
        self.is_escaped = False
        if self.is_open:
            self.is_open = False
            self.feed(rest[start:])

    def feed(self, text: bytes) -> None:
        """Go on by some bytes."""
        for byte in text:
            if self.is_escaped:
                self.is_escaped = False
            elif byte == 0x22:
                self.is_open = not self.is_open
            elif byte == 0x5C and self.is_open:
                self.is_escaped = True
