"""What may be watched of a serving engine: steps, tokens and the lives of requests.

Metrics, load figures and live views listen; none of them knows how the engine serves. All times are
wall times: seconds of CLOCK_MONOTONIC (`time.perf_counter()`).
"""

from dataclasses import dataclass

from engine.core_messages import StepStats
from engine.step_messages import StepDetail
from workbench.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """The life of one request of a user, told when it has ended.

    Of several answers: the first of the beginnings, the last of the ends, sums of the counts.

    Attributes:
        request_id: The user's.
        params: As the user gave them (n, max_tokens …).
        arrival_time: It was prepared.
        scheduled_time: It first ran; None if it never did.
        first_token_time, last_token_time: When the core had them; None if none came.
        finish_time: The front told its end.
        num_prompt_tokens: Length of the prompt.
        num_cached_tokens: Those found in the prefix cache.
        num_output_tokens: Tokens of all answers that were kept.
        longest_output: Tokens of its longest answer.
        num_preemptions: Times that it was thrown out of the batch.
        finish_reasons: Of each answer: "stop", "length", "abort" or "error".
        detail: What went wrong, or why an answer was cut, in one line; None otherwise.
        priority, client_id, session_id: As it was given in.
    """

    request_id: str
    params: SamplingParams
    arrival_time: float
    scheduled_time: float | None
    first_token_time: float | None
    last_token_time: float | None
    finish_time: float
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    longest_output: int
    num_preemptions: int
    finish_reasons: tuple[str, ...]
    detail: str | None = None
    priority: int = 0
    client_id: str = "default"
    session_id: str | None = None

    @property
    def finish_reason(self) -> str:
        """That of the first answer."""
        return self.finish_reasons[0]


class RequestListener:
    """Hears of everything in the event loop's thread; each method does nothing by default.

    Methods must return at once. A listener that raises is a defect; it is logged and not asked
    again.
    """

    def on_arrival(self, request_id: str, num_prompt_tokens: int, params: SamplingParams) -> None:
        """A request was handed to the core."""

    def on_step(self, stats: StepStats, detail: StepDetail | None) -> None:
        """A step has ended; before its tokens are told."""

    def on_queue(self, num_waiting: int, num_compiling: int) -> None:
        """So many requests of the core wait now, some of them for their grammars; told where no
        step tells it."""

    def on_first_token(self, request_id: str, latency_s: float) -> None:
        """A request got its first token, so many seconds after its arrival."""

    def on_tokens(self, request_id: str, num_new: int, now: float, is_first: bool) -> None:
        """New tokens of one answer.

        Args:
            request_id: The user's.
            num_new: Tokens, at least 1.
            now: When the step that gave them had ended, wall seconds.
            is_first: Whether they are the request's first ones.
        """

    def on_finished(self, record: RequestRecord) -> None:
        """A request has ended, in whatever way."""

    def on_core_dead(self, reason: str) -> None:
        """The core is gone; every open request ends with an error after this."""

    def on_core_ready(self) -> None:
        """A core serves (again)."""
