"""The workbench's scheduler beside vLLM's: the same calls in the same order, step by step.

From a server's record it takes which requests came before which step, and nothing else: what a step
holds is decided again, and compared with what vLLM decided. Steps come out with their shapes and
the times that vLLM took for them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experiments.live_vllm.errors import ServerError
from experiments.live_vllm.step_record import Add, Event, Row, Schedule, Update
from simulator.request_factory import RequestFactory
from workbench.config import CacheConfig, SchedulerConfig
from workbench.metrics import RequestRecord, StepLog
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.request import Request
from workbench.scheduler.scheduler import Scheduler
from workbench.step_profile import MeasuredStep
from workbench.workload.base import WorkloadRequest


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What decides in a server, as it says itself."""

    scheduler: SchedulerConfig
    cache: CacheConfig
    num_blocks: int

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "ServerSettings":
        """From the head of a step record."""
        names = (
            "max_num_seqs",
            "max_num_batched_tokens",
            "max_model_len",
            "enable_chunked_prefill",
            "long_prefill_token_threshold",
            "policy",
            "async_scheduling",
        )
        return cls(
            SchedulerConfig(**{name: told[name] for name in names}),
            CacheConfig(
                block_size=told["block_size"],
                enable_prefix_caching=told["enable_prefix_caching"],
            ),
            told["num_gpu_blocks"] - 1,  # vLLM keeps block 0 for itself
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """The first step that was decided differently."""

    step: int
    what: str
    vllm: Any
    workbench: Any

    def told(self, source: str) -> str:
        """In words; `source` is the phase."""
        return (
            f"step {self.step} of {source} was decided otherwise than here: {self.what}, vLLM"
            f" {str(self.vllm)[:200]}, workbench {str(self.workbench)[:200]}"
        )


@dataclass(slots=True)
class ReplayedPhase:
    """What a server did in a phase.

    Attributes:
        steps: With shapes and times, in order; up to the first difference.
        num_steps: That vLLM took.
        difference: The first one, or None.
        requests: By id, with their times in the engine.
        log: The steps as a run's log, times relative to `origin`.
    """

    steps: list[MeasuredStep] = field(default_factory=list)
    num_steps: int = 0
    difference: Difference | None = None
    requests: dict[str, Request] = field(default_factory=dict)
    log: StepLog = field(default_factory=StepLog)

    @property
    def num_equal(self) -> int:
        """Steps that both have decided alike, before any difference."""
        return self.num_steps if self.difference is None else self.difference.step

    def records(self, origin: float) -> dict[str, RequestRecord]:
        """The requests as the engine saw them, times relative to `origin`."""
        return {name: _record(request, origin) for name, request in self.requests.items()}


class StepReplay:
    """Replays a server's record, phase after phase: the KV cache goes on between them.

    Args:
        settings: The server's.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._scheduler = Scheduler(settings.scheduler, settings.cache, settings.num_blocks)
        self._factory = RequestFactory(settings.cache)
        self._num_requests = 0
        self._diverged: str | None = None

    def phase(
        self,
        events: Iterable[Event],
        items: Mapping[str, WorkloadRequest],
        origin: float = 0.0,
        source: str = "",
    ) -> ReplayedPhase:
        """Replay the events of a phase in which all of `items` were served, and no others.

        Raises:
            ServerError: A request is none of `items`, or an earlier phase was decided differently.
        """
        if self._diverged is not None:
            raise ServerError(f"{self._diverged}; nothing can be replayed after that")
        phase = ReplayedPhase()
        in_flight: list[tuple[Schedule, SchedulerOutput]] = []
        free_at: float | None = None  # when the step before was done, while requests were left
        for event in events:
            if isinstance(event, Add):
                self._add(phase, event, items)
            elif isinstance(event, Schedule):
                phase.num_steps += 1
                if phase.difference is None:
                    self._schedule(phase, event, in_flight)
            elif phase.difference is None and in_flight:
                decided, output = in_flight.pop(0)
                begin = decided.start if free_at is None else free_at
                free_at = event.end if event.num_unfinished else None
                self._update(event, output)
                seconds = max(event.end - begin, 1e-9)
                phase.steps.append(MeasuredStep(output.shape, seconds, source=source))
                _log(phase.log, begin - origin, seconds, output)
        if phase.difference is not None:
            self._diverged = phase.difference.told(source)
        return phase

    def _add(self, phase: ReplayedPhase, event: Add, items: Mapping[str, WorkloadRequest]) -> None:
        item = items.get(event.request_id)
        if item is None:
            raise ServerError(
                f"the server got request {event.request_id!r} from somebody else: validate a server"
                " that nobody uses meanwhile"
            )
        request = self._factory.request(item, self._num_requests)
        request.arrival_time = event.at
        self._num_requests += 1
        self._scheduler.add_request(request, event.at)
        phase.requests[event.request_id] = request

    def _schedule(
        self,
        phase: ReplayedPhase,
        event: Schedule,
        in_flight: list[tuple[Schedule, SchedulerOutput]],
    ) -> None:
        output = self._scheduler.schedule(event.start)
        while not output.total_num_scheduled_tokens and output.finished_req_ids:
            # vLLM tells its worker of ends in a step of nothing, which the record leaves out
            output = self._scheduler.schedule(event.start)
        output.shape.longest_decode = output.rows.longest_decode()
        in_flight.append((event, output))
        phase.difference = _difference(phase, event, output, self._settings.num_blocks)

    def _update(self, event: Update, output: SchedulerOutput) -> None:
        self._scheduler.update_from_output(output, ModelRunnerOutput(), event.end)


def _difference(
    phase: ReplayedPhase, event: Schedule, output: SchedulerOutput, num_blocks: int
) -> Difference | None:
    requests = phase.requests
    rows = [
        Row(name, requests[name].num_computed_tokens - tokens, tokens, 0)
        for name, tokens in output.num_scheduled_tokens.items()
    ]
    pairs = {
        "rows (request, computed, tokens)": (
            [(row.request_id, row.computed, row.tokens) for row in event.rows],
            [(row.request_id, row.computed, row.tokens) for row in rows],
        ),
        "preempted": (list(event.preempted), sorted(output.preempted_req_ids)),
        "waiting": (event.num_waiting, output.num_waiting),
        "used blocks": (num_blocks - event.num_free_blocks, output.num_used_blocks),
    }
    for what, (theirs, ours) in pairs.items():
        if theirs != ours:
            return Difference(phase.num_steps - 1, what, theirs, ours)
    return None


def _log(log: StepLog, start: float, seconds: float, output: SchedulerOutput) -> None:
    tokens, prefill = output.total_num_scheduled_tokens, output.num_prefill_tokens
    counts = output.num_running, output.num_waiting, len(output.preempted_req_ids)
    log.append(
        0, start, seconds, tokens, prefill, tokens - prefill, *counts, output.num_used_blocks
    )


def _record(request: Request, origin: float) -> RequestRecord:
    times = np.frombuffer(request.token_times, dtype=np.float64) - origin
    scheduled = request.first_scheduled_time
    return RequestRecord(
        request.request_id,
        0,
        request.arrival_time - origin,
        None if scheduled is None else scheduled - origin,
        float(times[-1]) if request.is_finished and len(times) else None,
        request.num_prompt_tokens,
        request.num_output_tokens,
        request.num_cached_tokens,
        request.num_preemptions,
        request.finish_reason or "unfinished",
        times,
        request.client_id,
        request.priority,
    )
