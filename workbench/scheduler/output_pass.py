"""Takes in what a step returned: tokens, accepted and rejected drafts, ends of requests.

Results come back in the order in which their steps were scheduled. A request may have been
preempted or have ended in between; its rows are then stale, or nobody's.
"""

from collections import deque
from collections.abc import Mapping, Sequence

from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput
from workbench.request import Request, RequestStatus
from workbench.scheduler.state import InFlightStep, SchedulerState

_ANONYMOUS = [0]


class OutputPass:
    """Applies the results of steps to their requests.

    Args:
        state: The scheduler's lists.
    """

    def __init__(self, state: SchedulerState) -> None:
        self._state = state

    def run(
        self, step: InFlightStep, model_output: ModelRunnerOutput, now: float
    ) -> EngineCoreOutputs:
        """Apply one step's results.

        Args:
            step: The oldest step in flight.
            model_output: What the model returned for it.
            now: Seconds on the engine's clock.
        """
        ending = self._state.cohort.return_tick(now) if step.tick else []
        rows = model_output.sampled_token_ids
        if rows is None:
            finished = self._apply_lengths(step, ending, now)
            return EngineCoreOutputs(finished=finished)
        batch = step.output._rows
        state = self._state
        if step.rows or step.leavers or ending or state.num_stoppable or state.num_constrained:
            return self._apply_tokens(step, batch.requests, rows, set(ending), now)
        # Nothing can happen but that every list of output tokens grows.
        deque(map(list.extend, batch.output_lists, rows), maxlen=0)
        return EngineCoreOutputs(batch.requests, rows)

    def take_drafts(self, draft_token_ids: Mapping[str, list[int]]) -> None:
        """Give the running requests the drafts that the next step is to verify."""
        for request_id, token_ids in draft_token_ids.items():
            request = self._state.requests.get(request_id)
            if request is not None and request.status is RequestStatus.RUNNING:
                request.spec_token_ids = () if request.is_prefill_chunk else token_ids

    def _apply_lengths(
        self, step: InFlightStep, ending: list[Request], now: float
    ) -> list[Request]:
        """Every row that owed a token gave one; only rows where that changes more are visited."""
        visits = [*step.rows, *step.leavers, *ending]
        if len(visits) > 1:
            visits.sort(key=lambda request: request.admission_index)
        finished: list[Request] = []
        members = set(ending)
        for request in visits:
            if request in step.rows:
                silent = request in step.silent
                tokens = [] if silent else _ANONYMOUS
                self._apply_row(step, request, step.rows[request], tokens, now, finished)
            elif request in members:
                self._finish(request, RequestStatus.FINISHED_LENGTH_CAPPED, finished)
            else:
                self._apply_row(step, request, 1, _ANONYMOUS, now, finished)
        self._remove(finished)
        return finished

    def _apply_tokens(
        self,
        step: InFlightStep,
        batch: Sequence[Request],
        rows: Sequence[list[int]],
        ending: set[Request],
        now: float,
    ) -> EngineCoreOutputs:
        finished: list[Request] = []
        late: set[Request] = set()
        single = step.rows
        leavers = set(step.leavers)
        has_grammars = self._state.num_constrained > 0
        for request, token_ids in zip(batch, rows, strict=True):
            if request.is_finished:
                # It ended while this step was in flight: what the step sampled is nobody's.
                late.add(request)
                token_ids = []
            if single and request in single:
                if token_ids:
                    request.output_token_ids += token_ids
                self._apply_row(step, request, single[request], token_ids, now, finished)
            elif leavers and request in leavers:
                request.output_token_ids += token_ids
                self._apply_row(step, request, 1, token_ids, now, finished)
            else:
                request.output_token_ids += token_ids
                if request.stop_token_ids and token_ids[0] in request.stop_token_ids:
                    request.stop_reason = token_ids[0]
                    self._finish(request, RequestStatus.FINISHED_STOPPED, finished)
                elif has_grammars and (status := _follow(request, token_ids[0])) is not None:
                    self._finish(request, status, finished)
                elif ending and request in ending:
                    self._finish(request, RequestStatus.FINISHED_LENGTH_CAPPED, finished)
        self._remove(finished)
        return EngineCoreOutputs(batch, rows, finished, late)

    def _apply_row(
        self,
        step: InFlightStep,
        request: Request,
        num_scheduled: int,
        token_ids: list[int],
        now: float,
        finished: list[Request],
    ) -> None:
        """Apply the row of one request that was scheduled on its own, or has left the cohort."""
        request._in_flight_tokens -= num_scheduled
        is_stale = request.num_stale_output_tokens > 0
        if is_stale:
            request.num_stale_output_tokens -= num_scheduled
        if request.is_finished or not token_ids:
            return
        had_placeholders = request._output_placeholders > 0
        drafts = step.output.scheduled_spec_decode_tokens.get(request.request_id)
        if drafts and not is_stale:
            self._reject_drafts(request, len(drafts) - (len(token_ids) - 1))
        num_kept, status = self._append(request, token_ids, now)
        if not is_stale:
            if status is not None:
                request._num_computed_tokens -= len(token_ids) - num_kept
            if request._output_placeholders > 0:
                request._output_placeholders -= len(token_ids)
            if request.status is RequestStatus.RUNNING and (
                had_placeholders or self._state.config.num_speculative_tokens
            ):
                settled = request.num_computed_tokens - request.num_in_flight_tokens
                self._state.kv_cache_manager.cache_blocks(request, settled)
        if status is not None:
            del token_ids[num_kept:]  # what lies behind the end is nobody's
            self._finish(request, status, finished)

    @staticmethod
    def _reject_drafts(request: Request, num_rejected: int) -> None:
        if request._num_computed_tokens > 0:
            request._num_computed_tokens -= num_rejected
        if request._output_placeholders > 0:
            request._output_placeholders -= num_rejected

    def _append(
        self, request: Request, token_ids: list[int], now: float
    ) -> tuple[int, RequestStatus | None]:
        """Count the tokens up to the first that ends the request; (tokens kept, how it ends)."""
        stop_ids = request.stop_token_ids
        has_grammar = request.grammar is not None and token_ids is not _ANONYMOUS
        for num_kept, token_id in enumerate(token_ids, 1):
            request._num_output_tokens += 1
            request._token_times.append(now)
            status = None
            if stop_ids and token_id in stop_ids:
                status = RequestStatus.FINISHED_STOPPED
                request.stop_reason = token_id
            else:
                if has_grammar:
                    status = _follow(request, token_id)
                if status is None and self._is_at_length(request):
                    status = RequestStatus.FINISHED_LENGTH_CAPPED
            if status is not None:
                del request.output_token_ids[request.num_output_tokens :]
                return num_kept, status
        return len(token_ids), None

    def _is_at_length(self, request: Request) -> bool:
        return (
            request.num_output_tokens >= request.max_tokens
            or request.num_tokens >= self._state.max_model_len
        )

    def _finish(self, request: Request, status: RequestStatus, finished: list[Request]) -> None:
        state = self._state
        if request.status is RequestStatus.RUNNING:
            state.forget_running(request)
        else:
            state.waiting.remove(request)
        request.status = status
        state.release(request)
        finished.append(request)

    def _remove(self, finished: list[Request]) -> None:
        """Take finished requests out of the running list, all at once."""
        running = self._state.running
        if len(finished) == 1:
            # A request that had been preempted ends from the queue.
            if finished[0] in running:
                running.remove(finished[0])
        elif finished:
            self._state.running = [r for r in running if not r.is_finished]


def _follow(request: Request, token_id: int) -> RequestStatus | None:
    """Take a request's grammar on by its one new token; how that ends it, or None."""
    grammar = request.grammar
    if grammar is None:
        return None
    if not grammar.accept_token(token_id):
        request.stop_reason = grammar.failure
        return RequestStatus.FINISHED_ERROR
    return RequestStatus.FINISHED_STOPPED if grammar.is_complete else None
