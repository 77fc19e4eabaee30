"""A request of a core elsewhere, as far as the front must know it to make outputs.

It has what the output processor reads of a core's own Request, kept up to date by messages. Knows
no queue, no block and no socket.
"""

from engine.core_messages import AddRequest, FinishedRequest
from engine.wire_params import params_to_wire
from workbench.request import FINISH_REASONS, RequestStatus
from workbench.sampling_params import SamplingParams


class RemoteRequest:
    """The mirror of one request of the core.

    Args:
        handle: The front's number for it.
        user_request_id: The request of the user that it answers.
        request_id: The core's id.
        prompt_token_ids: The prompt.
        max_tokens: Most output tokens.
        stop_token_ids: What ends the answer.
        sampling_params: For the device.
        arrival_time: Wall time, seconds, as all times here.
        priority, client_id, session_id, deadline: As in workbench.request.

    Attributes:
        encoded: The message that hands it to the core; b"" once it was sent.
        output_token_ids: The answer so far.
        token_times: Of the first and the last token; empty before.
        detail: Why it did not get all it wanted, or None.
    """

    __slots__ = (
        "arrival_time",
        "client_id",
        "deadline",
        "detail",
        "encoded",
        "first_scheduled_time",
        "handle",
        "max_tokens",
        "num_cached_tokens",
        "num_preemptions",
        "output_token_ids",
        "priority",
        "prompt_token_ids",
        "request_id",
        "sampling_params",
        "session_id",
        "status",
        "stop_reason",
        "stop_token_ids",
        "token_times",
        "user_request_id",
    )

    def __init__(
        self,
        handle: int,
        user_request_id: str,
        request_id: str,
        prompt_token_ids: list[int],
        max_tokens: int,
        stop_token_ids: frozenset[int],
        sampling_params: SamplingParams,
        arrival_time: float,
        *,
        priority: int = 0,
        client_id: str = "default",
        session_id: str | None = None,
        deadline: float | None = None,
    ) -> None:
        self.handle = handle
        self.user_request_id = user_request_id
        self.request_id = request_id
        self.prompt_token_ids = prompt_token_ids
        self.max_tokens = max_tokens
        self.stop_token_ids = stop_token_ids
        self.sampling_params = sampling_params
        self.arrival_time = arrival_time
        self.priority = priority
        self.client_id = client_id
        self.session_id = session_id
        self.deadline = deadline

        self.encoded = b""
        self.status = RequestStatus.WAITING
        self.stop_reason: int | str | None = None
        self.output_token_ids: list[int] = []
        self.first_scheduled_time: float | None = None
        self.token_times: tuple[float, ...] = ()
        self.num_cached_tokens = 0
        self.num_preemptions = 0
        self.detail: str | None = None

    @property
    def finish_reason(self) -> str | None:
        """stop, length, abort or error; None while the request lives."""
        return FINISH_REASONS.get(self.status)

    @property
    def why_refused(self) -> str | None:
        """Why the core ended it before it ran; None if it did not."""
        if self.status is RequestStatus.FINISHED_ERROR and self.first_scheduled_time is None:
            return str(self.stop_reason)
        return None

    @property
    def num_output_tokens(self) -> int:
        """Tokens of the answer so far."""
        return len(self.output_token_ids)

    def message(self) -> AddRequest:
        """What the core must know."""
        return AddRequest(
            self.handle,
            self.request_id,
            self.prompt_token_ids,
            self.max_tokens,
            list(self.stop_token_ids),
            params_to_wire(self.sampling_params),
            self.arrival_time,
            self.priority,
            self.client_id,
            self.session_id,
            self.deadline,
        )

    def end(self, told: FinishedRequest) -> None:
        """Take in how it ended in the core."""
        self.status = RequestStatus(told.status)
        self.stop_reason = told.stop_reason
        self.first_scheduled_time = told.scheduled_ts
        if told.first_token_ts is not None and told.last_token_ts is not None:
            self.token_times = (told.first_token_ts, told.last_token_ts)
        self.num_cached_tokens = told.num_cached_tokens
        self.num_preemptions = told.num_preemptions
        self.detail = told.detail
