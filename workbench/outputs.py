"""What crosses the seam between the scheduler and the world that runs the model.

A SchedulerOutput says what is different from the step before, and lazily what is the same. These
records decide nothing and know neither clock nor device.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.request import Request
from workbench.sampling_params import SamplingParams
from workbench.step_profile import StepShape

UNKNOWN_DRAFT_TOKEN = 0
"""What a device verifies in the place of a draft that nobody has proposed."""


@dataclass(frozen=True, slots=True)
class NewRequestData:
    """What a device must learn of a request that joins the batch, for the first time or again.

    Attributes:
        request_id: The request.
        num_prompt_tokens: Length of the prompt, tokens.
        prompt_token_ids: The prompt, where tokens are real.
        output_token_ids: Output before a preemption; empty for a new request.
        sampling_params: How to sample.
        block_ids: Physical blocks, one list a KV-cache group.
        num_computed_tokens: Tokens whose KV those blocks hold already.
    """

    request_id: str
    num_prompt_tokens: int
    prompt_token_ids: Sequence[int] | None
    output_token_ids: tuple[int, ...]
    sampling_params: SamplingParams | None
    block_ids: tuple[tuple[int, ...], ...]
    num_computed_tokens: int


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """KV blocks of one request to copy between device and host memory before the step.

    Attributes:
        request_id: The request.
        device_blocks, host_blocks: Equally many; the i-th of one belongs to the i-th of the other.
    """

    request_id: str
    device_blocks: tuple[int, ...]
    host_blocks: tuple[int, ...]


class BatchRows:
    """The rows of a step in batch order. Steps with the same rows share one.

    Attributes:
        requests: In batch order.
        num_tokens_of: Tokens of the requests that compute more or less than one.
    """

    __slots__ = ("_output_lists", "_scheduled", "num_tokens_of", "requests")

    def __init__(self, requests: list[Request], num_tokens_of: Mapping[Request, int]) -> None:
        self.requests = requests
        self.num_tokens_of = num_tokens_of
        self._scheduled: dict[str, int] | None = None
        self._output_lists: list[list[int]] | None = None

    @property
    def scheduled(self) -> dict[str, int]:
        """Tokens of each row by request id."""
        if self._scheduled is None:
            tokens = self.num_tokens_of
            if tokens:
                self._scheduled = {r.request_id: tokens.get(r, 1) for r in self.requests}
            else:
                self._scheduled = {r.request_id: 1 for r in self.requests}
        return self._scheduled

    @property
    def output_lists(self) -> list[list[int]]:
        """The requests' lists of output tokens."""
        if self._output_lists is None:
            self._output_lists = [r.output_token_ids for r in self.requests]
        return self._output_lists

    def longest_decode(self) -> int:
        """KV tokens that the longest row of one token reads in a step that has been scheduled."""
        tokens = self.num_tokens_of
        decodes = (r.num_computed_tokens for r in self.requests if tokens.get(r, 1) == 1)
        return max(decodes, default=0)


NO_ROWS = BatchRows([], {})


class SchedulerOutput:
    """One step's decisions.

    Attributes:
        step: Number of the step, from 0.
        scheduled_new_reqs: Requests that join the batch.
        new_block_ids: Blocks appended to the tables of requests that were in the batch before,
            by request id, one list a group; only requests that got any.
        scheduled_spec_decode_tokens: Draft tokens to verify, by request id.
        preempted_req_ids: Requests thrown out in this step, in order.
        finished_req_ids: Requests that ended since the step before.
        swap_out, swap_in: KV copies to host memory and back.
        total_num_scheduled_tokens: Tokens of the step.
        num_prefill_tokens: Those of them that are not generated or draft tokens.
        num_running, num_waiting: Requests after scheduling.
        num_used_blocks: KV blocks referenced after scheduling.
        shape: The step as a cost model sees it.
    """

    __slots__ = (
        "_rows",
        "finished_req_ids",
        "new_block_ids",
        "num_prefill_tokens",
        "num_running",
        "num_used_blocks",
        "num_waiting",
        "preempted_req_ids",
        "scheduled_new_reqs",
        "scheduled_spec_decode_tokens",
        "shape",
        "step",
        "swap_in",
        "swap_out",
        "total_num_scheduled_tokens",
    )

    def __init__(self, step: int, rows: BatchRows = NO_ROWS) -> None:
        self.step = step
        self.scheduled_new_reqs: list[NewRequestData] = []
        self.new_block_ids: dict[str, list[list[int]]] = {}
        self.scheduled_spec_decode_tokens: dict[str, list[int]] = {}
        self.preempted_req_ids: list[str] = []
        self.finished_req_ids: list[str] = []
        self.swap_out: list[BlockCopy] = []
        self.swap_in: list[BlockCopy] = []
        self.total_num_scheduled_tokens = 0
        self.num_prefill_tokens = 0
        self.num_running = 0
        self.num_waiting = 0
        self.num_used_blocks = 0
        self.shape = StepShape()
        self._rows = rows

    @property
    def num_scheduled_tokens(self) -> dict[str, int]:
        """Tokens to compute of each request, by request id, in batch order."""
        return self._rows.scheduled

    @property
    def rows(self) -> BatchRows:
        """The requests of the step and their tokens, in batch order."""
        return self._rows

    def as_dict(self) -> dict[str, Any]:
        """Every decision in plain values, for comparison and recording."""
        names = [name for name in self.__slots__ if not name.startswith("_")]
        return {"num_scheduled_tokens": self.num_scheduled_tokens} | {
            name: getattr(self, name) for name in names
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SchedulerOutput) and self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SchedulerOutput({self.as_dict()})"


@dataclass(slots=True)
class ModelRunnerOutput:
    """What one step of the model returned.

    Attributes:
        sampled_token_ids: Tokens of each row in batch order (the order of
            SchedulerOutput.num_scheduled_tokens); empty for a prompt that is not finished. None:
            every row that owed a token gave one, and token ids are of no interest (simulation
            by lengths).
        draft_token_ids: Draft tokens proposed for the next step, by request id.
        failed: Why the model could not go on with a request (a NaN among its logits), by request
            id: it ends as an error, whatever its row holds.
        logprobs, prompt_logprobs: What the requests asked for, by request id; the scheduler passes
            it over.
    """

    sampled_token_ids: Sequence[list[int]] | None = None
    draft_token_ids: Mapping[str, list[int]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    logprobs: Mapping[str, Any] = field(default_factory=dict)
    prompt_logprobs: Mapping[str, Any] = field(default_factory=dict)


class EngineCoreOutputs:
    """What a step gave to the requests.

    Attributes:
        finished: Requests that ended in this step, in batch order, with final counts and times.
    """

    __slots__ = ("_batch", "_late", "_rows", "finished")

    def __init__(
        self,
        batch: Sequence[Request] = (),
        rows: Sequence[list[int]] | None = None,
        finished: list[Request] | None = None,
        late: Collection[Request] = (),
    ) -> None:
        self.finished = finished if finished is not None else []
        self._batch = batch
        self._rows = rows
        self._late = late

    def new_tokens(self) -> Iterator[tuple[Request, list[int]]]:
        """(request, its new token ids) of every request that got real tokens in this step."""
        for request, token_ids in zip(self._batch, self._rows or (), strict=False):
            if token_ids and request not in self._late:
                yield request, token_ids
