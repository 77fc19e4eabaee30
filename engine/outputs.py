"""What a user gets back: answers with their text, tokens and log probabilities.

Names and fields are vLLM's. These records compute nothing.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Logprob:
    """Log probability of one token at one position.

    Attributes:
        logprob: Natural logarithm, of the model's own distribution.
        rank: Place in the vocabulary by probability, from 1.
        decoded_token: The token as text, where a tokenizer is at hand.
    """

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


PositionLogprobs = dict[int, Logprob]
"""By token id: the token that stands at the position first, then the most likely ones."""


@dataclass(slots=True)
class CompletionOutput:
    """One answer.

    Attributes:
        index: Place among the n answers of its request.
        text: The text (so far; or what is new, with RequestOutputKind.DELTA); "" without tokenizer.
        token_ids: Its tokens, the one that ended it included.
        cumulative_logprob: Sum of the log probabilities of all its tokens; None without logprobs.
        logprobs: One dict a token.
        finish_reason: "stop", "length", "abort" or "error" (refused, or failed while it ran);
            None while it grows.
        stop_reason: The stop string or stop token id that ended it, None for the end-of-sequence
            token; with "error", what went wrong in one line.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[PositionLogprobs] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def finished(self) -> bool:
        """Whether the answer has ended."""
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestMetrics:
    """When things happened to a request; seconds on the engine's clock.

    Of several answers: the first of the beginnings, the last of the ends, sums of the counts.

    Attributes:
        arrival_time: It was added.
        scheduled_ts: It first ran; None if it never did.
        first_token_ts, last_token_ts: A token came; None if none did.
        num_generation_tokens: Tokens of its answers.
        num_preemptions: Times that it was thrown out of the batch.
    """

    arrival_time: float
    scheduled_ts: float | None = None
    first_token_ts: float | None = None
    last_token_ts: float | None = None
    num_generation_tokens: int = 0
    num_preemptions: int = 0

    @property
    def first_token_latency(self) -> float | None:
        """Seconds from arrival to the first token."""
        return None if self.first_token_ts is None else self.first_token_ts - self.arrival_time


@dataclass(slots=True)
class RequestOutput:
    """A request and its answers.

    Attributes:
        request_id: The request.
        prompt: Its text, where it came as text.
        prompt_token_ids: Its tokens.
        prompt_logprobs: One dict a prompt token, None for the first; None if not asked for.
        outputs: Its answers by index; while it streams, those that are new in this step.
        finished: Whether all answers have ended.
        metrics: When things happened; None until it has finished.
        num_cached_tokens: Prompt tokens found in the prefix cache (by the first answer).
        lora_request: Always None; vLLM's programs look for it.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    prompt_logprobs: list[PositionLogprobs | None] | None
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestMetrics | None = None
    num_cached_tokens: int | None = None
    lora_request: None = None


def refused_output(request_id: str, prompt: str | None, reason: str) -> RequestOutput:
    """The output of a request that was refused before it ran; `reason` is its stop_reason."""
    answer = CompletionOutput(0, "", [], finish_reason="error", stop_reason=reason)
    return RequestOutput(request_id, prompt, [], None, [answer], finished=True)
