"""Log probabilities as plain values: what leaves the device and crosses to whoever serves.

Knows no tensor and no text, so that it can be imported where torch is not installed.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log probabilities at one position of one request.

    Attributes:
        token_ids: The token that stands there, then the most likely ones, best first (the first
            token comes again if it is among them).
        logprobs: Of each, natural logarithm.
        rank: Number of tokens of the vocabulary at least as likely as the first one; 1 is best.
    """

    token_ids: list[int]
    logprobs: list[float]
    rank: int


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """Log probabilities of a run of prompt tokens, as one step computed them.

    Attributes:
        start: Place in the prompt of the first token told of; at least 1, for nothing predicts
            token 0.
        tokens: One a prompt token.
    """

    start: int
    tokens: list[TokenLogprobs]
