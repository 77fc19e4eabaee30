"""How the next token of a request is chosen and when the request stops.

Names and meanings follow vLLM's SamplingParams. This file checks values; it samples nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from workbench.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling settings of one request.

    Attributes:
        n: Number of answers to one prompt.
        temperature: Softmax temperature; 0 means greedy.
        top_p: Smallest probability mass kept, in (0, 1].
        top_k: Number of most likely tokens kept; 0 or -1 keeps all.
        min_p: Smallest kept probability relative to the most likely token, in [0, 1].
        presence_penalty, frequency_penalty: Additive penalties in [-2, 2] (OpenAI's definition).
        repetition_penalty: Multiplicative penalty > 0 (Keskar et al., CTRL, 2019).
        seed: Seed of this request's own random stream.
        stop: Strings that end the answer.
        stop_token_ids: Token ids that end the answer.
        ignore_eos: Go on after the end-of-sequence token.
        max_tokens: Largest number of output tokens; None: up to the model's length.
        min_tokens: Number of output tokens before a stop token may be sampled.
        logprobs, prompt_logprobs: Number of log probabilities to return per position.
        logit_bias: Added to the logits, per token id.
        bad_words, allowed_token_ids: Forbidden words; the only token ids allowed.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: tuple[str, ...] = ()
    allowed_token_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check("n", self.n, self.n >= 1, "at least 1")
        _check("temperature", self.temperature, self.temperature >= 0, "0 (greedy) or more")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "in (0, 1]")
        _check("top_k", self.top_k, self.top_k >= -1, "-1, 0 (off) or more")
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "in [0, 1]")
        for name in ("presence_penalty", "frequency_penalty"):
            _check(name, getattr(self, name), -2 <= getattr(self, name) <= 2, "in [-2, 2]")
        _check(
            "repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0"
        )
        if self.max_tokens is not None:
            _check("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1")
            _check(
                "min_tokens",
                self.min_tokens,
                0 <= self.min_tokens <= self.max_tokens,
                f"between 0 and max_tokens={self.max_tokens}",
            )


def _check(name: str, value: object, ok: bool, limit: str) -> None:
    if not ok:
        raise ConfigError(f"{name}={value} must be {limit}")
