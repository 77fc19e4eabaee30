"""Log probabilities of a model to which all tokens are equally likely.

The records have the fields that the real engine's have. They know no request.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

ALL_TOKENS = -1


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log probabilities at one position.

    Attributes:
        token_ids: The token that stands there, then the most likely ones, best first.
        logprobs: Of each, natural logarithm.
        rank: Of the first one; 1 is best.
    """

    token_ids: list[int]
    logprobs: list[float]
    rank: int


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """Log probabilities of a run of prompt tokens.

    Attributes:
        start: Place in the prompt of the first token told of; at least 1.
        tokens: One a prompt token.
    """

    start: int
    tokens: list[TokenLogprobs]


def token_logprobs(token_id: int, num_logprobs: int, vocab_size: int) -> TokenLogprobs:
    """Of one token, and of the `num_logprobs` most likely ones (-1: all), itself the first."""
    count = vocab_size if num_logprobs == ALL_TOKENS else min(num_logprobs, vocab_size)
    token_ids = [token_id]
    if count:
        first = range(count if token_id < count else count - 1)
        token_ids += [token_id, *(i for i in first if i != token_id)]
    return TokenLogprobs(token_ids, [-math.log(vocab_size)] * len(token_ids), 1)


def prompt_logprobs(
    prompt: Sequence[int], start: int, stop: int, num_logprobs: int, vocab_size: int
) -> PromptLogprobs | None:
    """Of the prompt tokens that the positions [start, stop) predict; None: they predict none."""
    told = prompt[start + 1 : stop + 1]
    if not told:
        return None
    return PromptLogprobs(start + 1, [token_logprobs(i, num_logprobs, vocab_size) for i in told])
