"""The events of a recording, and what a recorded scheduler was made of.

Knows how an event becomes the objects of a core again; nothing of files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.config import CacheConfig, SchedulerConfig
from workbench.kv_cache.block_hash import TokenBlockHashes
from workbench.outputs import ModelRunnerOutput
from workbench.recording.grammar import RecordedGrammar
from workbench.recording.lines import COPIED, sampling_params
from workbench.request import Request

FORMAT = "workbench-recording/1"
GRAMMAR_END = "grammar_end"
"""Of a request: the tokens at which its grammar ended it, and why it could not go on, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSettings:
    """What a scheduler is made of.

    Attributes:
        scheduler, cache: The configs in force.
        num_blocks, num_host_blocks, max_concurrent_batches, forget_uncomputed_blocks: See
            Scheduler.
        policies: Of queue, batch_policy, victim and eviction, the class and its arguments as a
            config names them (`_target_` …); without one of them: vLLM's choice.
    """

    scheduler: SchedulerConfig
    cache: CacheConfig
    num_blocks: int
    num_host_blocks: int = 0
    max_concurrent_batches: int = 1
    forget_uncomputed_blocks: bool = False
    policies: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """A request came.

    Attributes:
        now: Seconds.
        values: Its line.
    """

    now: float
    values: Mapping[str, Any]

    @property
    def is_taken(self) -> bool:
        """Whether it was queued; otherwise it was ignored, as it could never run."""
        return bool(self.values["is_taken"])

    def request(self, cache: CacheConfig) -> Request:
        """The request as it was when it came."""
        values = self.values
        copied = {name: values[name] for name in COPIED}
        request = Request(
            **copied,
            prompt_token_ids=values["prompt_token_ids"],
            stop_token_ids=frozenset(values["stop_token_ids"]),
            sampling_params=sampling_params(values["sampling_params"]),
        )
        params = request.sampling_params
        if params is not None and params.structured_outputs is not None:
            request.grammar = RecordedGrammar(*values.get(GRAMMAR_END, ()))
        if values["has_block_hashes"]:
            request.block_hashes = TokenBlockHashes(
                values["prompt_token_ids"],
                request.output_token_ids,
                cache.block_size,
                cache.prefix_caching_hash_algo,
            )
        return request


@dataclass(frozen=True, slots=True)
class AbortEvent:
    """Requests were ended from outside."""

    now: float
    request_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class ScheduleEvent:
    """A step was decided.

    Attributes:
        now: Seconds.
        step: Its number.
        uses_device: Whether it computes or copies anything.
        line: The event as it is written.
    """

    now: float
    step: int
    uses_device: bool
    line: str


@dataclass(frozen=True, slots=True)
class UpdateEvent:
    """A step's results were taken in.

    Attributes:
        now: Seconds.
        step: Its number.
        values: Its line.
    """

    now: float
    step: int
    values: Mapping[str, Any]

    def model_output(self) -> ModelRunnerOutput:
        """What the model had returned."""
        values, rows = self.values, self.values["tokens"]
        if rows is not None:
            rows = [[row] if isinstance(row, int) else list(row) for row in rows]
        drafts = {name: list(row) for name, row in values["drafts"].items()}
        return ModelRunnerOutput(rows, drafts, dict(values["failed"]))


@dataclass(frozen=True, slots=True)
class EndEvent:
    """Nothing more was recorded."""

    now: float
    has_work: bool


Event = RequestEvent | AbortEvent | ScheduleEvent | UpdateEvent | EndEvent


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that has been read.

    Attributes:
        settings: Of the scheduler that was recorded.
        events: In the order of the calls.
    """

    settings: RecordedSettings
    events: list[Event]

    @property
    def is_whole(self) -> bool:
        """Whether it has its end: the process that wrote it was not killed."""
        return bool(self.events) and isinstance(self.events[-1], EndEvent)
