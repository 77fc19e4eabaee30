"""Log probabilities of a model to which all tokens are equally likely.

Knows no request.
"""

import math
from collections.abc import Sequence

from workbench.token_logprobs import PromptLogprobs, TokenLogprobs

ALL_TOKENS = -1


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
