"""What crosses between the front and the core: msgpack arrays, one message a step.

Requests travel under handles, small numbers that the front gives out and never uses twice. All
times are wall times: seconds of CLOCK_MONOTONIC (`time.perf_counter()`), which both sides read the
same. These records decide nothing and know no socket.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.step_messages import StepDetail
from workbench.token_logprobs import PromptLogprobs, TokenLogprobs


class AddRequest(msgspec.Struct, array_like=True, tag=True):
    """One answer to compute.

    Attributes:
        handle: The front's number for it.
        request_id: The core's id: the user's, or that with the answer's index before it.
        prompt_token_ids: The prompt.
        max_tokens: Most output tokens.
        stop_token_ids: What ends the answer.
        sampling_params: For the model runner, as plain values (see `wire_params`).
        arrival_time: Wall time, seconds.
        priority, client_id, session_id: As in workbench.request.
        deadline: Wall time, seconds, or None.
    """

    handle: int
    request_id: str
    prompt_token_ids: list[int]
    max_tokens: int
    stop_token_ids: list[int]
    sampling_params: dict[str, Any]
    arrival_time: float
    priority: int = 0
    client_id: str = "default"
    session_id: str | None = None
    deadline: float | None = None


class AbortRequests(msgspec.Struct, array_like=True, tag=True):
    """Requests to end; unknown handles are passed over."""

    handles: list[int]


class RowsTaken(msgspec.Struct, array_like=True, tag=True):
    """The front has taken in so many more rows of steps; see `rows_of`."""

    num_rows: int


class Call(msgspec.Struct, array_like=True, tag=True):
    """Something to be done between two steps; answered by a CallResult."""

    call_id: int
    name: str
    args: list[Any]


class Shutdown(msgspec.Struct, array_like=True, tag=True):
    """End the core; requests that are unfinished are dropped."""


FrontMessage = AddRequest | AbortRequests | RowsTaken | Call | Shutdown
"""What the front sends."""


class CoreInfo(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """What the front must know of a core.

    Attributes:
        world: "engine" or "simulator".
        vocab_size: Of the model.
        max_model_len: Most tokens of prompt and answer.
        max_prompt_tokens: Longest prompt that the empty KV cache holds.
        num_kv_blocks: Usable KV blocks.
        block_size: Tokens a block.
        enable_prefix_caching: Whether blocks are kept for prompts with the same prefix.
        max_num_seqs, max_num_batched_tokens: Limits of a step.
        speed: Seconds of the core's clock per second of the wall clock; 1 but in a simulation.
        pid: Of the core's process (in_thread: of this one).
        model: Name or folder of the model.
        facts: Whatever else a world wants known (dtype, device …), plain values.
    """

    world: str
    vocab_size: int
    max_model_len: int
    max_prompt_tokens: int
    num_kv_blocks: int
    block_size: int
    enable_prefix_caching: bool
    max_num_seqs: int
    max_num_batched_tokens: int
    speed: float = 1.0
    pid: int = 0
    model: str = ""
    facts: Mapping[str, Any] = {}


class Ready(msgspec.Struct, array_like=True, tag=True):
    """The core takes requests."""

    info: CoreInfo


class StartedRequest(msgspec.Struct, array_like=True):
    """A request that joined the batch, for the first time or again.

    Attributes:
        handle: The request.
        num_cached_tokens: Prompt tokens found in the prefix cache.
        scheduled_ts: Wall time at which it first ran.
    """

    handle: int
    num_cached_tokens: int
    scheduled_ts: float


class FinishedRequest(msgspec.Struct, array_like=True):
    """How a request ended.

    Attributes:
        handle: The request.
        status: A RequestStatus.
        stop_reason: The stop token, or what went wrong; None otherwise.
        num_cached_tokens: Prompt tokens found in the prefix cache.
        num_preemptions: Times that it was thrown out of the batch.
        num_output_tokens: Tokens of its answer.
        scheduled_ts, first_token_ts, last_token_ts: Wall times, seconds; None if it never came.
        detail: Why it did not get all it wanted, in one line; None if it did.
    """

    handle: int
    status: int
    stop_reason: int | str | None = None
    num_cached_tokens: int = 0
    num_preemptions: int = 0
    num_output_tokens: int = 0
    scheduled_ts: float | None = None
    first_token_ts: float | None = None
    last_token_ts: float | None = None
    detail: str | None = None


class StepStats(msgspec.Struct, array_like=True, frozen=True):
    """One step in numbers, and the core after it.

    Attributes:
        step: Number of the step, from 0.
        start: Wall time at which the device began with it, seconds.
        duration_s: Wall seconds until its results had come.
        num_running, num_waiting: Unfinished requests after the step.
        num_used_blocks: KV blocks that requests reference after the step.
        num_scheduled_tokens: Tokens of the step.
        num_prefill_tokens, num_decode_tokens: Those of the prompts, and the others.
        preempted: Handles of the requests that were thrown out in the step.
        num_preemptions: Preemptions so far.
        prefix_queries, prefix_hits: Tokens looked up in the prefix cache, and found, so far.
        num_drafts, num_draft_tokens, num_accepted_tokens: Speculative decoding so far: times that
            a request brought drafts, their tokens, and those that were kept.
        accepted_at: Those that were kept, so far, by their place in the draft.
        num_compiling: Of the waiting requests, those whose grammars are being compiled.
    """

    step: int
    start: float
    duration_s: float
    num_running: int
    num_waiting: int
    num_used_blocks: int
    num_scheduled_tokens: int
    num_prefill_tokens: int
    num_decode_tokens: int
    preempted: list[int]
    num_preemptions: int
    prefix_queries: int
    prefix_hits: int
    num_drafts: int
    num_draft_tokens: int
    num_accepted_tokens: int
    accepted_at: list[int] = []
    num_compiling: int = 0


class StepOutputs(msgspec.Struct, array_like=True, tag=True):
    """What one step gave.

    Attributes:
        handles: Requests that got tokens, in batch order.
        tokens: The first (mostly the only) new token of each.
        more_tokens: Further ones (verified drafts), by handle.
        started: Requests that joined the batch.
        finished: Requests that ended.
        logprobs: Of the new tokens of those that asked, by handle.
        prompt_logprobs: Of prompt tokens that the step computed, by handle.
        stats: The step in numbers; None where no step ran.
        detail: Only while somebody watches.
        queue: Where no step ran: (num_waiting, num_compiling) as in StepStats, if they changed.
    """

    handles: list[int] = []
    tokens: list[int] = []
    more_tokens: dict[int, list[int]] = {}
    started: list[StartedRequest] = []
    finished: list[FinishedRequest] = []
    logprobs: dict[int, list[TokenLogprobs]] = {}
    prompt_logprobs: dict[int, PromptLogprobs] = {}
    stats: StepStats | None = None
    detail: StepDetail | None = None
    queue: tuple[int, int] | None = None


def rows_of(step: StepOutputs) -> int:
    """How much work a step is for the front: rows, and one for the message."""
    return len(step.handles) + 1


class CallResult(msgspec.Struct, array_like=True, tag=True):
    """The answer to a Call.

    Attributes:
        call_id: Which one.
        value: What it returned, plain values.
        error: What went wrong in one line, or None.
    """

    call_id: int
    value: Any = None
    error: str | None = None


class CoreFailed(msgspec.Struct, array_like=True, tag=True):
    """The core cannot start, or cannot go on; it ends after this message.

    Attributes:
        reason: In one line.
        error: "module:class" of a WorkbenchError that has a cure the user can apply, or None.
    """

    reason: str
    error: str | None = None


CoreMessage = Ready | StepOutputs | CallResult | CoreFailed
"""What the core sends."""
