"""How long an answer will be: a predictor with an error that can be set, for length-aware policies.

It stands in for a learned predictor: it knows the true length and blurs it. It draws from no random
stream: the blur is a function of the seed and the request's id, so it is the same in every order of
calls, in every replica and in both worlds.
"""

from hashlib import blake2b
from math import exp, log1p, sqrt
from statistics import NormalDist
from typing import Protocol

from workbench.errors import ConfigError

_NORMAL = NormalDist()


class HasOutputLength(Protocol):
    """What the predictor reads of a request."""

    request_id: str
    max_tokens: int
    predicted_output_tokens: int | None


class LengthPredictor:
    """Predicts `true length x factor`, the factor lognormal with mean 1.

    The true length is the request's `predicted_output_tokens`, or its `max_tokens` where that is
    None (exact for a trace, which forces the length of every answer).

    Args:
        relative_error: Standard deviation of the factor; 0 is an oracle.
        seed: Another seed, other errors.

    Raises:
        ConfigError: relative_error is negative.
    """

    def __init__(self, relative_error: float, seed: int) -> None:
        if not relative_error >= 0:
            raise ConfigError(
                f"relative_error={relative_error} is below 0: use 0 for an oracle, or 0.5 for "
                "predictions that are off by half"
            )
        self._sigma = sqrt(log1p(relative_error**2))
        self._salt = f"{seed}:"

    def predict(self, request: HasOutputLength) -> float:
        """Predicted output tokens of the whole answer, at least 1."""
        known = request.predicted_output_tokens
        length = float(request.max_tokens if known is None else known)
        if self._sigma:
            length *= self._factor(request.request_id)
        return max(1.0, length)

    def _factor(self, request_id: str) -> float:
        digest = blake2b((self._salt + request_id).encode(), digest_size=8).digest()
        uniform = ((int.from_bytes(digest) >> 12) + 0.5) / (1 << 52)
        return exp(self._sigma * _NORMAL.inv_cdf(uniform) - self._sigma**2 / 2)
