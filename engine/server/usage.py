"""Counts the tokens of a request, as answers tell them.

Knows numbers only.
"""

from collections.abc import Iterable
from typing import Any

from engine.outputs import RequestOutput


class Usage:
    """Tokens of one HTTP request, over all its prompts and answers.

    Attributes:
        prompt_tokens: Of all prompts, each counted once.
        completion_tokens: Of all answers.
        cached_tokens: Prompt tokens found in the prefix cache; None until the engine has told.
    """

    __slots__ = ("cached_tokens", "completion_tokens", "prompt_tokens")

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = 0
        self.cached_tokens: int | None = None

    def add_cached(self, outputs: Iterable[RequestOutput]) -> None:
        """Take in the cached tokens of requests that have run."""
        told = [each.num_cached_tokens for each in outputs if each.num_cached_tokens is not None]
        if told:
            self.cached_tokens = (self.cached_tokens or 0) + sum(told)

    def as_dict(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        cached = self.cached_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
            "prompt_tokens_details": None if cached is None else {"cached_tokens": cached},
            "completion_tokens_details": None,
        }
