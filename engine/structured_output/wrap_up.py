"""Closes a JSON answer in time: as its last tokens come near, only those that close it may come.

At every moment there is a way to the end, a few tokens that complete the answer. As long as more
tokens are left than that way and what one more token could add to it, the model is free; then the
way is followed. Knows tokens left and ways; how a way is found, Completion knows.
"""

from collections.abc import Sequence
from functools import cached_property

from llguidance import LLMatcher

from engine.structured_output.completion import MAX_TOKENS, Completion
from engine.structured_output.schema_sizes import SchemaSizes
from engine.structured_output.vocabulary import Vocabulary

LEAST_MARGIN = 8
"""Tokens for what one token can open in any text: half a character, an escape, a few brackets."""


class WrapUp:
    """What all answers to one schema share.

    Args:
        vocabulary: The model's tokens.
        schema: JSON text.
    """

    def __init__(self, vocabulary: Vocabulary, schema: str) -> None:
        self._schema = schema
        self.vocabulary = vocabulary
        self.completion = Completion(vocabulary)
        self._first_way: list[int] | None = None
        self._has_first_way = False

    def prepare(self, matcher: LLMatcher) -> None:
        """Find now what the steps of the first answer would otherwise wait for.

        Args:
            matcher: At its beginning; left as it is.
        """
        self.first_way(matcher)
        _ = self.margin

    @cached_property
    def margin(self) -> int:
        """Most tokens by which one token makes the way to the end longer."""
        texts = SchemaSizes(self._schema).optional_texts()
        longest = max(texts, key=len, default="")
        return LEAST_MARGIN + len(self.vocabulary.ll.tokenize_str(longest))

    def first_way(self, matcher: LLMatcher) -> list[int] | None:
        """The way from the beginning; found once."""
        if not self._has_first_way:
            self._first_way = self.completion.find(matcher, ())
            self._has_first_way = True
        return self._first_way


class Closing:
    """The closing of one answer.

    Args:
        wrap_up: Of its schema.
    """

    def __init__(self, wrap_up: WrapUp) -> None:
        self._wrap_up = wrap_up
        self._way: list[int] | None = None
        self._way_at = 0
        self._has_begun = False
        # Tokens left at which to look next: until then the way cannot grow too long.
        self._look_at: float = float("inf")

    def look_again(self) -> None:
        """The answer was taken back: what was known of it may no longer hold."""
        if self._look_at >= 0:
            self._look_at = float("inf")

    def next_token(
        self, matcher: LLMatcher, token_ids: Sequence[int], num_left: int, may_end: bool
    ) -> int | None:
        """The only token that may come; None: any that the grammar allows.

        Args:
            matcher: Of the answer; left as it is.
            token_ids: The answer.
            num_left: Tokens that it may still have.
            may_end: Whether it may end here.
        """
        if num_left > self._look_at:
            return None
        way = self._current_way(matcher, token_ids, num_left)
        self._way, self._way_at = way, len(token_ids)
        if not self._has_begun and (way is None or len(way) > num_left):
            # there is no way, or no room for even the smallest answer
            self._look_at = -1
            return None
        self._has_begun = True
        if way is None:
            return None
        margin = self._wrap_up.margin
        slack = num_left - len(way) - margin
        if slack > 0:
            self._look_at = num_left - max(slack // (margin + 1), 1)
            return None
        ends_now = bool(way) and way[0] in self._wrap_up.vocabulary.eos_token_ids
        return way[0] if way and (may_end or not ends_now) else None

    def _current_way(
        self, matcher: LLMatcher, token_ids: Sequence[int], num_left: int
    ) -> list[int] | None:
        """The way known from before, as far as it still leads to the end; otherwise a new one."""
        if not token_ids:
            return self._wrap_up.first_way(matcher)
        way, num_new = self._way, len(token_ids) - self._way_at
        if way is not None:
            if num_new > 0 and list(token_ids[-num_new:]) == way[:num_new]:
                return way[num_new:]
            for candidate in (way, way[max(num_new, 0) :]):
                if candidate and self._leads_to_end(matcher, candidate):
                    return candidate
        enough = num_left - self._wrap_up.margin - 1
        limit = min(num_left, MAX_TOKENS)
        return self._wrap_up.completion.find(matcher, token_ids, enough, limit)

    def _leads_to_end(self, matcher: LLMatcher, way: list[int]) -> bool:
        ends = self._wrap_up.vocabulary.eos_token_ids[:1]
        whole = way if way[-1] in ends else [*way, *ends]
        return bool(ends) and matcher.validate_tokens(whole) == len(whole)
