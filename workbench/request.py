"""One request and its life: WAITING, RUNNING, perhaps PREEMPTED, and one of five ends.

A request knows its counts and its blocks; it knows no queue, no budget and no policy. While it
only decodes, its counts are kept by the decode cohort it belongs to (see DecodeCohort) and are
read through the same properties.
"""

import enum
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.kv_cache.block_hash import BlockHashes
from workbench.sampling_params import SamplingParams
from workbench.structured_output import Grammar

if TYPE_CHECKING:
    from workbench.kv_cache.block_run import HeldRuns
    from workbench.scheduler.decode_cohort import DecodeCohort


class RequestStatus(enum.IntEnum):
    """Where a request is in its life; everything from FINISHED_STOPPED on is an end."""

    WAITING = 1
    RUNNING = 2
    PREEMPTED = 3
    FINISHED_STOPPED = 4
    FINISHED_LENGTH_CAPPED = 5
    FINISHED_ABORTED = 6
    FINISHED_IGNORED = 7
    FINISHED_ERROR = 8


FINISH_REASONS = {
    RequestStatus.FINISHED_STOPPED: "stop",
    RequestStatus.FINISHED_LENGTH_CAPPED: "length",
    RequestStatus.FINISHED_ABORTED: "abort",
    RequestStatus.FINISHED_IGNORED: "ignored",
    RequestStatus.FINISHED_ERROR: "error",
}


class Request:
    """A request as the scheduler and its policies see it.

    Args:
        request_id: Unique among the requests of an engine.
        num_prompt_tokens: Length of the prompt, tokens.
        max_tokens: Most output tokens.
        arrival_time: Seconds on the engine's clock.
        prompt_token_ids: The prompt, where tokens are real.
        block_hashes: Keys for prefix caching; None: the request takes no part in it.
        stop_token_ids: Output tokens that end the request.
        sampling_params: For the model runner; the scheduler reads none of it.
        priority: Lower comes first.
        client_id: For fair share.
        session_id: For session affinity.
        deadline: Seconds on the engine's clock, or None.
        predicted_output_tokens: What a length predictor said, or None.
        grammar: What the answer must conform to, at its beginning, or None. Of this request alone.
    """

    __slots__ = (
        "_cohort",
        "_finish_tick",
        "_in_flight_tokens",
        "_joined_tick",
        "_num_computed_tokens",
        "_num_output_tokens",
        "_output_placeholders",
        "_token_times",
        "_wake_tick",
        "admission_index",
        "arrival_index",
        "arrival_time",
        "block_hashes",
        "block_ids",
        "client_id",
        "deadline",
        "first_scheduled_time",
        "grammar",
        "held_runs",
        "is_prefill_chunk",
        "last_scheduled_token",
        "max_tokens",
        "num_cached_blocks",
        "num_cached_tokens",
        "num_preemptions",
        "num_prompt_tokens",
        "num_stale_output_tokens",
        "num_swapped_tokens",
        "output_token_ids",
        "predicted_output_tokens",
        "priority",
        "prompt_token_ids",
        "request_id",
        "sampling_params",
        "session_id",
        "spec_token_ids",
        "status",
        "stop_reason",
        "stop_token_ids",
    )

    def __init__(
        self,
        request_id: str,
        num_prompt_tokens: int,
        max_tokens: int,
        arrival_time: float = 0.0,
        *,
        prompt_token_ids: Sequence[int] | None = None,
        block_hashes: BlockHashes | None = None,
        stop_token_ids: frozenset[int] = frozenset(),
        sampling_params: SamplingParams | None = None,
        priority: int = 0,
        client_id: str = "default",
        session_id: str | None = None,
        deadline: float | None = None,
        predicted_output_tokens: int | None = None,
        grammar: Grammar | None = None,
    ) -> None:
        self.request_id = request_id
        self.num_prompt_tokens = num_prompt_tokens
        self.max_tokens = max_tokens
        self.arrival_time = arrival_time
        self.prompt_token_ids = prompt_token_ids
        self.output_token_ids: list[int] = []
        self.block_hashes = block_hashes
        self.stop_token_ids = stop_token_ids
        self.sampling_params = sampling_params
        self.priority = priority
        self.client_id = client_id
        self.session_id = session_id
        self.deadline = deadline
        self.predicted_output_tokens = predicted_output_tokens
        self.grammar = grammar

        # Computed tokens once the step is scheduled that samples its last token.
        self.last_scheduled_token = num_prompt_tokens + max_tokens - 1
        self._begin()

    def _begin(self) -> None:
        """Set what changes in the course of its life."""
        self.status = RequestStatus.WAITING
        self.stop_reason: int | str | None = None
        self.arrival_index = 0
        self.admission_index = 0
        self.first_scheduled_time: float | None = None
        self.num_preemptions = 0
        self.num_cached_tokens = 0
        self.is_prefill_chunk = False
        self.spec_token_ids: Sequence[int] = ()
        # In-flight output that a preemption made stale: it is still delivered, but its
        # tokens no longer belong to the (reset) computed count.
        self.num_stale_output_tokens = 0
        self.num_swapped_tokens = 0

        # One list of physical block ids, and one count of keyed blocks, a KV-cache group.
        self.block_ids: Sequence[list[int]] = ()
        self.num_cached_blocks: list[int] = []
        self.held_runs: HeldRuns | None = None

        self._num_computed_tokens = 0
        self._num_output_tokens = 0
        self._in_flight_tokens = 0
        self._output_placeholders = 0
        self._token_times = array("d")
        self._cohort: DecodeCohort | None = None
        self._joined_tick = 0
        self._wake_tick = 0
        self._finish_tick = 0

    @property
    def num_computed_tokens(self) -> int:
        """Tokens whose KV is in the cache or will be when the scheduled steps have run."""
        cohort = self._cohort
        if cohort is None:
            return self._num_computed_tokens
        return self._num_computed_tokens + cohort.num_scheduled - self._joined_tick

    @property
    def num_output_tokens(self) -> int:
        """Output tokens that the model has returned."""
        cohort = self._cohort
        if cohort is None or cohort.num_returned <= self._joined_tick:
            return self._num_output_tokens
        return self._num_output_tokens + cohort.num_returned - self._joined_tick

    @property
    def num_tokens(self) -> int:
        """Prompt and output tokens."""
        return self.num_prompt_tokens + self.num_output_tokens

    @property
    def num_in_flight_tokens(self) -> int:
        """Tokens scheduled whose step has not returned."""
        cohort = self._cohort
        if cohort is None:
            return self._in_flight_tokens
        return self._in_flight_tokens + cohort.in_flight_since(self._joined_tick)

    @property
    def num_output_placeholders(self) -> int:
        """Output tokens promised by steps in flight (asynchronous scheduling)."""
        cohort = self._cohort
        if cohort is None or not cohort.uses_placeholders:
            return self._output_placeholders
        return self._output_placeholders + cohort.in_flight_since(self._joined_tick)

    @property
    def token_times(self) -> "array[float]":
        """Seconds at which each output token was returned (float64)."""
        cohort = self._cohort
        if cohort is None:
            return self._token_times
        return self._token_times + cohort.times_since(self._joined_tick)

    @property
    def is_finished(self) -> bool:
        """Whether the request has ended, in whatever way."""
        return self.status >= RequestStatus.FINISHED_STOPPED

    @property
    def finish_reason(self) -> str | None:
        """stop, length, abort, ignored or error; None while the request lives."""
        return FINISH_REASONS.get(self.status)

    def __repr__(self) -> str:
        return (
            f"Request({self.request_id!r}, {self.status.name}, prompt={self.num_prompt_tokens}, "
            f"output={self.num_output_tokens}/{self.max_tokens}, "
            f"computed={self.num_computed_tokens})"
        )
