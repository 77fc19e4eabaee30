"""The loop of a core that is served: take in messages, run a step, send what it gave.

One message a step. A core that is faster than its front waits for it, so that nothing piles up
between them. Knows the core's step and the messages; how they travel, and what becomes of an error,
others know.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from engine.core_grammars import GrammarQueue
from engine.core_messages import (
    AbortRequests,
    AddRequest,
    Call,
    CallResult,
    CoreMessage,
    FinishedRequest,
    FrontMessage,
    Ready,
    RowsTaken,
    Shutdown,
    StepOutputs,
    rows_of,
)
from engine.core_requests import add_block_hashes
from engine.core_signs import SignsOfLife
from engine.errors import InputError, one_line
from engine.served_core import ServedCore
from engine.step_detail import StepWatcher
from engine.step_report import StepReporter
from engine.step_witness import StepWitness
from engine.wire_params import params_from_wire
from workbench.errors import WorkbenchError
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput
from workbench.request import Request, RequestStatus
from workbench.sampling_params import SamplingParams
from workbench.structured_output import Grammar

MOST_ROWS_AHEAD = 4096
"""Rows of steps that the front may have left to take in before the core waits."""
LOOK_FOR_GRAMMARS_S = 0.002
"""Seconds between two looks at the grammars that are compiled while no step is to be run."""


class Channel(Protocol):
    """The core's end of the line."""

    def receive(self, wait_s: float) -> list[FrontMessage]:
        """All messages that are there; waits so many seconds for the first one, perhaps inf."""
        ...

    def send(self, message: CoreMessage) -> None:
        """Send a message."""
        ...


class CoreLoop:
    """Serves one core until it is told to end.

    Args:
        served: The core.
        channel: Where messages come from and go to.
        signs: Where it tells that it gets on; None: nowhere.
    """

    def __init__(
        self, served: ServedCore, channel: Channel, signs: SignsOfLife | None = None
    ) -> None:
        self._served = served
        self._core = served.core
        self._channel = channel
        self._signs = signs or SignsOfLife()
        self._witness = StepWitness(served.core.executor)
        served.core.executor = self._witness
        self._watcher = StepWatcher()
        self._requests: dict[int, Request] = {}
        self._handles: dict[str, int] = {}
        self._refused: list[FinishedRequest] = []
        self._grammars = None if served.grammars is None else GrammarQueue(served.grammars)
        self._told_queue = (0, 0)
        self._num_rows_ahead = 0
        books = self._handles, self._requests
        self._reporter = StepReporter(
            served.core.scheduler, served.to_wall, *books, lambda: self._num_compiling
        )
        self._calls: Mapping[str, Callable[..., Any]] = {
            "reset_prefix_cache": served.core.scheduler.kv_cache_manager.reset_prefix_cache,
            "watch": self._watcher.watch,
            "block_usage": self._block_usage,
            "check_integrity": self._check_integrity,
            **served.calls,
        }

    def run(self) -> None:
        """Serve; returns after a Shutdown."""
        self._channel.send(Ready(self._served.info))
        try:
            self._serve()
        finally:
            if self._grammars is not None:
                self._grammars.close()

    def _serve(self) -> None:
        while True:
            for message in self._receive():
                if isinstance(message, Shutdown):
                    return
                self._take(message)
            if self._num_compiling:
                self._take_compiled()
            if self._refused:
                self._tell(StepOutputs(finished=self._refused))
                self._refused = []
            if self._may_step:
                self._step()
            elif self._told_queue != self._queue:
                self._tell(StepOutputs(queue=self._queue))

    def _receive(self) -> list[FrontMessage]:
        """The messages that are there; a loop without work rests until one comes."""
        if self._core.has_work:
            return self._channel.receive(self._patience)
        self._signs.rest()
        messages = self._channel.receive(self._patience)
        self._signs.get_on()
        return messages

    @property
    def _may_step(self) -> bool:
        return self._core.has_work and self._num_rows_ahead < MOST_ROWS_AHEAD

    @property
    def _patience(self) -> float:
        """Seconds to wait for a message."""
        if self._may_step:
            return 0.0
        return LOOK_FOR_GRAMMARS_S if self._num_compiling else math.inf

    @property
    def _num_compiling(self) -> int:
        """Requests that wait for their grammars."""
        return 0 if self._grammars is None else len(self._grammars)

    @property
    def _queue(self) -> tuple[int, int]:
        num_compiling = self._num_compiling
        return len(self._core.scheduler.waiting) + num_compiling, num_compiling

    def _take(self, message: AddRequest | AbortRequests | RowsTaken | Call) -> None:
        if isinstance(message, AddRequest):
            self._add(message)
        elif isinstance(message, AbortRequests):
            self._abort(message.handles)
        elif isinstance(message, RowsTaken):
            self._num_rows_ahead -= message.num_rows
        else:
            self._channel.send(self._call(message))

    def _take_compiled(self) -> None:
        """Let in whom no grammar holds up any longer."""
        assert self._grammars is not None
        for message, reason in self._grammars.take():
            if reason is None:
                self._add(message)
            else:
                self._refuse(message, reason)

    def _add(self, message: AddRequest) -> None:
        """Let a request in, or let it wait for its grammar."""
        try:
            params = params_from_wire(message.sampling_params)
            grammar = self._grammar(params)
            if grammar is None and params.structured_outputs is not None:
                assert self._grammars is not None
                self._grammars.add(message, params)
                return
            request = self._request(message, params, grammar)
            is_taken = self._core.add_request(request)
        except WorkbenchError as error:
            self._refuse(message, str(error))
            return
        if is_taken:
            self._requests[message.handle] = request
            self._handles[request.request_id] = message.handle
        else:
            self._refuse(message, self._core.scheduler.why_ended(request))

    def _refuse(self, message: AddRequest, reason: str | None) -> None:
        status = int(RequestStatus.FINISHED_ERROR)
        self._refused.append(FinishedRequest(message.handle, status, reason, detail=reason))

    def _grammar(self, params: SamplingParams) -> Grammar | None:
        """The grammar of a request at its beginning; None where it is not there, or not needed."""
        if params.structured_outputs is None:
            return None
        if self._served.grammars is None:
            raise InputError("structured_outputs: this core has no grammars; ask without")
        return self._served.grammars.compiled(params)

    def _request(
        self, message: AddRequest, params: SamplingParams, grammar: Grammar | None
    ) -> Request:
        """The request of the core."""
        from_wall, deadline = self._served.from_wall, message.deadline
        request = Request(
            message.request_id,
            len(message.prompt_token_ids),
            message.max_tokens,
            from_wall(message.arrival_time),
            prompt_token_ids=message.prompt_token_ids,
            stop_token_ids=frozenset(message.stop_token_ids),
            sampling_params=params,
            priority=message.priority,
            client_id=message.client_id,
            session_id=message.session_id,
            deadline=None if deadline is None else from_wall(deadline),
            grammar=grammar,
        )
        add_block_hashes(request, message.prompt_token_ids, self._served.cache_config)
        return request

    def _abort(self, handles: list[int]) -> None:
        requests = [self._requests.pop(handle) for handle in handles if handle in self._requests]
        for request in requests:
            del self._handles[request.request_id]
        if requests:
            self._core.abort_requests([request.request_id for request in requests])
        if self._grammars is not None:
            self._grammars.drop(handles)

    def _call(self, call: Call) -> CallResult:
        function = self._calls.get(call.name)
        if function is None:
            names = ", ".join(sorted(self._calls))
            return CallResult(call.call_id, error=f"no call {call.name!r}: there are {names}")
        try:
            value = msgspec.to_builtins(function(*call.args))
            return CallResult(call.call_id, value)
        except Exception as error:
            return CallResult(call.call_id, error=f"{call.name} failed: {one_line(error)}")

    def _step(self) -> None:
        step = self._core.step()
        try:
            pending = next(step)
        except StopIteration:
            # a pipelined core returns at once from a step that waits for none
            return
        model_output: ModelRunnerOutput = pending.result()
        scheduler_output, started = self._witness.in_flight.popleft()
        if scheduler_output.total_num_scheduled_tokens:
            self._signs.get_on()  # a step that computes nothing is no progress
        self._reporter.count_drafts(scheduler_output, model_output)
        try:
            step.send(model_output)
        except StopIteration as done:
            outputs: EngineCoreOutputs = done.value
            # an abort may have come between a request's end and its report
            outputs.finished = [each for each in outputs.finished if self._knows(each)]
            message = self._reporter.report(scheduler_output, started, model_output, outputs)
            message.detail = self._watcher.detail(self._core.scheduler, scheduler_output)
            self._forget(outputs.finished)
            self._tell(message)

    def _tell(self, message: StepOutputs) -> None:
        if message.stats is not None:
            self._told_queue = message.stats.num_waiting, message.stats.num_compiling
        elif message.queue is not None:
            self._told_queue = message.queue
        self._num_rows_ahead += rows_of(message)
        self._channel.send(message)

    def _knows(self, request: Request) -> bool:
        return self._requests.get(self._handles.get(request.request_id, -1)) is request

    def _forget(self, finished: list[Request]) -> None:
        for request in finished:
            del self._requests[self._handles.pop(request.request_id)]

    def _block_usage(self) -> tuple[int, int]:
        cache = self._core.scheduler.kv_cache_manager
        return cache.num_used_blocks, cache.pool.num_blocks

    def _check_integrity(self) -> dict[str, int]:
        """Check the scheduler and the loop's own books; how many requests they hold."""
        scheduler = self._core.scheduler
        scheduler.check_integrity()
        assert set(self._requests.values()) >= set(scheduler.running), "a request has no handle"
        assert set(self._handles) == {r.request_id for r in self._requests.values()}
        if self._grammars is not None:
            self._grammars.check_integrity()
        return {
            "requests": len(self._requests) + self._num_compiling,
            "unfinished": scheduler.num_unfinished_requests,
            "steps_in_flight": len(self._witness.in_flight),
        }
