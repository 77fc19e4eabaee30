"""The requests that are open at the front: what the core says of them becomes what users get.

A step is taken in by pieces, and the event loop gets air between them. Knows handles, mirrors and
collectors; knows no socket and no tokenizer.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.core_messages import AbortRequests, FinishedRequest, FrontMessage, StepOutputs
from engine.core_requests import PreparedRequest
from engine.errors import EngineDeadError, InputError
from engine.listeners import Listeners
from engine.output_collector import OutputCollector
from engine.output_processor import OutputProcessor
from engine.outputs import RequestOutput
from engine.remote_request import RemoteRequest
from engine.request_listener import RequestRecord
from workbench.outputs import ModelRunnerOutput

ROWS_AT_ONCE = 128
"""Rows of a step that are taken in before the event loop gets air."""


class CoreLine(Protocol):
    """The way to the core."""

    def send(self, message: FrontMessage) -> None:
        """Send a message."""
        ...

    def send_encoded(self, data: bytes) -> None:
        """Send a message that is bytes already."""
        ...


@dataclass(slots=True)
class _Open:
    """One request of a user."""

    prepared: PreparedRequest[RemoteRequest]
    collector: OutputCollector
    finish_reasons: list[str | None]
    has_tokens: bool = False


@dataclass(slots=True)
class _Rows:
    """A part of a step; the output processor's StepTokens."""

    grown: list[tuple[RemoteRequest, list[int]]]
    finished: list[RemoteRequest]

    def new_tokens(self) -> Iterator[tuple[RemoteRequest, list[int]]]:
        return iter(self.grown)


class OpenRequests:
    """From a request's submission to its end.

    Args:
        line: The way to the core.
        processor: Makes outputs.
        listeners: Hear of it.
    """

    def __init__(self, line: CoreLine, processor: OutputProcessor, listeners: Listeners) -> None:
        self._line = line
        self._processor = processor
        self._listeners = listeners
        self._open: dict[str, _Open] = {}
        self._remote: dict[int, RemoteRequest] = {}
        self._by_core_id: dict[str, RemoteRequest] = {}
        self._when_empty: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, prepared: PreparedRequest[RemoteRequest]) -> OutputCollector:
        """Hand a request to the core.

        Raises:
            InputError: Its id is in use, or it was handed in before.
        """
        request_id, requests = prepared.request_id, prepared.requests
        if not requests[0].encoded:
            raise InputError(f"request_id={request_id!r} was streamed before: prepare it again")
        if self._processor.has_any(request_id, requests):
            raise InputError(f"request_id={request_id!r} is in use: choose another one")
        self._processor.add_request(request_id, prepared.source, requests)
        collector = OutputCollector(prepared.params.output_kind)
        self._open[request_id] = _Open(prepared, collector, [None] * len(requests))
        for request in requests:
            self._remote[request.handle] = request
            self._by_core_id[request.request_id] = request
            self._line.send_encoded(request.encoded)
            request.encoded = b""
        num_tokens = len(prepared.prompt_token_ids)
        self._listeners.tell("on_arrival", request_id, num_tokens, prepared.params)
        return collector

    def abort(self, request_ids: Iterable[str]) -> None:
        """End requests of users; unknown ids are passed over."""
        outputs, core_ids = self._processor.abort_requests(request_ids)
        self._drop(core_ids)
        self._deliver(outputs)

    def abort_all(self) -> None:
        """End all."""
        self.abort(list(self._open))

    def fail_all(self, reason: str) -> None:
        """The core is gone: every open request ends with an error."""
        opened = list(self._open.values())
        self._open.clear()
        self._remote.clear()
        self._by_core_id.clear()
        self._processor.clear()
        for each in opened:
            each.collector.fail(EngineDeadError(reason))
            self._tell_end(each, "error", reason)
        self._note_empty()

    async def wait_empty(self) -> None:
        """Wait until none is open; one waiter at a time."""
        if self._open:
            self._when_empty = asyncio.get_running_loop().create_future()
            await self._when_empty

    async def take(self, step: StepOutputs) -> None:
        """Take in a step."""
        for told in step.started:
            started = self._remote.get(told.handle)
            if started is not None:
                started.num_cached_tokens = told.num_cached_tokens
                started.first_scheduled_time = told.scheduled_ts
        stats = step.stats
        now = time.perf_counter() if stats is None else stats.start + stats.duration_s
        ended = {told.handle: told for told in step.finished}
        self._take_part(self._without_tokens(step, ended), self._logprobs(step))
        for start in range(0, len(step.handles), ROWS_AT_ONCE):
            rows = self._rows(step, start, ended, now)
            self._take_part(rows, None)
            await asyncio.sleep(0)

    def _without_tokens(self, step: StepOutputs, ended: dict[int, FinishedRequest]) -> _Rows:
        """Requests that ended and got no tokens in this step."""
        finished = []
        if ended:
            for handle in ended.keys() - set(step.handles):
                request = self._remote.get(handle)
                if request is not None:
                    request.end(ended[handle])
                    finished.append(request)
        return _Rows([], finished)

    def _rows(
        self, step: StepOutputs, start: int, ended: dict[int, FinishedRequest], now: float
    ) -> _Rows:
        """Some rows of a step."""
        rows, more, remote = _Rows([], []), step.more_tokens, self._remote
        stop = start + ROWS_AT_ONCE
        for handle, token_id in zip(step.handles[start:stop], step.tokens[start:stop], strict=True):
            request = remote.get(handle)
            if request is None:
                # it has ended here, by a stop string or an abort
                continue
            new = [token_id]
            if more and handle in more:
                new += more[handle]
            request.output_token_ids += new
            times = request.token_times
            request.token_times = (times[0] if times else now, now)
            rows.grown.append((request, new))
            if ended and handle in ended:
                request.end(ended[handle])
                rows.finished.append(request)
        if self._listeners.want_tokens:
            self._tell_tokens(rows, now)
        return rows

    def _logprobs(self, step: StepOutputs) -> ModelRunnerOutput | None:
        """Log probabilities by the core's ids."""
        if not step.logprobs and not step.prompt_logprobs:
            return None
        remote = self._remote
        return ModelRunnerOutput(
            logprobs={
                remote[handle].request_id: told
                for handle, told in step.logprobs.items()
                if handle in remote
            },
            prompt_logprobs={
                remote[handle].request_id: told
                for handle, told in step.prompt_logprobs.items()
                if handle in remote
            },
        )

    def _take_part(self, rows: _Rows, logprobs: ModelRunnerOutput | None) -> None:
        if not rows.grown and not rows.finished and logprobs is None:
            return
        outputs, stopped = self._processor.process(logprobs, rows)
        for request in rows.finished:
            del self._remote[request.handle]
            del self._by_core_id[request.request_id]
        self._drop(stopped)
        self._deliver(outputs)

    def _drop(self, core_ids: Sequence[str]) -> None:
        """Forget requests of the core, and end them there."""
        requests = [self._by_core_id.pop(core_id, None) for core_id in core_ids]
        handles = [request.handle for request in requests if request is not None]
        for handle in handles:
            del self._remote[handle]
        if handles:
            self._line.send(AbortRequests(handles))

    def _deliver(self, outputs: Sequence[RequestOutput]) -> None:
        opened = self._open
        for output in outputs:
            each = opened[output.request_id]
            for answer in output.outputs:
                if answer.finish_reason is not None:
                    each.finish_reasons[answer.index] = answer.finish_reason
            if output.finished:
                each.collector.is_open = False
                del opened[output.request_id]
                self._tell_end(each, "abort")
            refusal = _refusal(each.prepared) if output.finished else None
            if refusal is None:
                each.collector.put(output)
            else:
                each.collector.fail(refusal)
        if outputs:
            self._note_empty()

    def _note_empty(self) -> None:
        waiter = self._when_empty
        if waiter is not None and not self._open and not waiter.done():
            waiter.set_result(None)

    def _tell_tokens(self, rows: _Rows, now: float) -> None:
        for request, new in rows.grown:
            each = self._open[request.user_request_id]
            is_first, each.has_tokens = not each.has_tokens, True
            if is_first:
                latency_s = now - request.arrival_time
                self._listeners.tell("on_first_token", request.user_request_id, latency_s)
            self._listeners.tell_tokens(request.user_request_id, len(new), now, is_first)

    def _tell_end(self, each: _Open, default_reason: str, detail: str | None = None) -> None:
        if len(self._listeners):
            self._listeners.tell("on_finished", _record(each, default_reason, detail))


def _record(opened: _Open, default_reason: str, detail: str | None) -> RequestRecord:
    """The life of a request that has ended."""
    requests, prepared = opened.prepared.requests, opened.prepared
    scheduled = [
        request.first_scheduled_time
        for request in requests
        if request.first_scheduled_time is not None
    ]
    times = [request.token_times for request in requests if request.token_times]
    details = [request.detail for request in requests if request.detail is not None]
    return RequestRecord(
        request_id=prepared.request_id,
        params=prepared.params,
        arrival_time=requests[0].arrival_time,
        scheduled_time=min(scheduled, default=None),
        first_token_time=min((each[0] for each in times), default=None),
        last_token_time=max((each[-1] for each in times), default=None),
        finish_time=time.perf_counter(),
        num_prompt_tokens=len(prepared.prompt_token_ids),
        num_cached_tokens=requests[0].num_cached_tokens,
        num_output_tokens=sum(request.num_output_tokens for request in requests),
        longest_output=max(request.num_output_tokens for request in requests),
        num_preemptions=sum(request.num_preemptions for request in requests),
        finish_reasons=tuple(reason or default_reason for reason in opened.finish_reasons),
        detail=detail or next(iter(details), None),
        priority=requests[0].priority,
        client_id=requests[0].client_id,
        session_id=requests[0].session_id,
    )


def _refusal(prepared: PreparedRequest[RemoteRequest]) -> InputError | None:
    """What the core would not take a request for; None: it took it."""
    reasons = (request.why_refused for request in prepared.requests)
    reason = next((reason for reason in reasons if reason is not None), None)
    return None if reason is None else InputError(reason)
