"""Makes the one message of a step: tokens, ends and numbers, under the front's handles.

Knows what a core's step returns and what the message holds; sends nothing and changes nothing.
"""

import time
from collections.abc import Callable, Mapping

from engine.core_messages import FinishedRequest, StartedRequest, StepOutputs, StepStats
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput, SchedulerOutput
from workbench.request import Request
from workbench.scheduler.scheduler import Scheduler


class StepReporter:
    """Reports the steps of one core, each once and in order.

    Args:
        scheduler: The core's.
        to_wall: From the core's clock to wall time.
        handles: Of the unfinished requests, by the core's id; kept by the caller.
        requests: The same requests by handle.
        num_compiling: Tells how many requests wait for their grammars, outside the scheduler.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        to_wall: Callable[[float], float],
        handles: Mapping[str, int],
        requests: Mapping[int, Request],
        num_compiling: Callable[[], int],
    ) -> None:
        self._num_compiling = num_compiling
        self._scheduler = scheduler
        self._to_wall = to_wall
        self._handles = handles
        self._requests = requests
        self._last_end = 0.0
        self._num_drafts = 0
        self._num_draft_tokens = 0
        self._num_accepted_tokens = 0
        self._accepted_at: list[int] = []

    def count_drafts(
        self, scheduler_output: SchedulerOutput, model_output: ModelRunnerOutput
    ) -> None:
        """Count a step's drafts, before its rows are cut at the ends of answers."""
        drafts, rows = scheduler_output.scheduled_spec_decode_tokens, model_output.sampled_token_ids
        if not drafts or rows is None:
            return
        for core_id, row in zip(scheduler_output.num_scheduled_tokens, rows, strict=True):
            tokens = drafts.get(core_id)
            if tokens and row:
                self._num_drafts += 1
                self._num_draft_tokens += len(tokens)
                self._count_accepted(len(row) - 1)

    def _count_accepted(self, num_accepted: int) -> None:
        self._num_accepted_tokens += num_accepted
        counts = self._accepted_at
        counts += [0] * (num_accepted - len(counts))
        for place in range(num_accepted):
            counts[place] += 1

    def report(
        self,
        scheduler_output: SchedulerOutput,
        started: float,
        model_output: ModelRunnerOutput,
        outputs: EngineCoreOutputs,
    ) -> StepOutputs:
        """The message of a step whose results have been taken in.

        Args:
            scheduler_output: What the step was.
            started: Wall time at which it was started.
            model_output: What the model returned.
            outputs: What became of it.
        """
        handles = self._handles
        message = StepOutputs(
            started=self._started(scheduler_output),
            finished=[self._finished(request) for request in outputs.finished],
            stats=self._stats(scheduler_output, started),
        )
        self._add_tokens(message, model_output, outputs)
        if model_output.prompt_logprobs:
            message.prompt_logprobs = {
                handles[core_id]: told
                for core_id, told in model_output.prompt_logprobs.items()
                if core_id in handles
            }
        return message

    def _add_tokens(
        self, message: StepOutputs, model_output: ModelRunnerOutput, outputs: EngineCoreOutputs
    ) -> None:
        handles, logprobs = self._handles, model_output.logprobs
        rows, tokens = message.handles, message.tokens
        for request, token_ids in outputs.new_tokens():
            core_id = request.request_id
            handle = handles[core_id]
            rows.append(handle)
            tokens.append(token_ids[0])
            if len(token_ids) > 1:
                message.more_tokens[handle] = token_ids[1:]
            if logprobs and core_id in logprobs:
                message.logprobs[handle] = logprobs[core_id]

    def _started(self, scheduler_output: SchedulerOutput) -> list[StartedRequest]:
        started = []
        for new in scheduler_output.scheduled_new_reqs:
            handle = self._handles.get(new.request_id)
            if handle is not None:
                request = self._requests[handle]
                when = self._to_wall(request.first_scheduled_time or 0.0)
                started.append(StartedRequest(handle, request.num_cached_tokens, when))
        return started

    def _finished(self, request: Request) -> FinishedRequest:
        to_wall, times = self._to_wall, request.token_times
        scheduled = request.first_scheduled_time
        return FinishedRequest(
            self._handles[request.request_id],
            int(request.status),
            request.stop_reason,
            request.num_cached_tokens,
            request.num_preemptions,
            request.num_output_tokens,
            None if scheduled is None else to_wall(scheduled),
            to_wall(times[0]) if times else None,
            to_wall(times[-1]) if times else None,
            self._scheduler.why_ended(request),
        )

    def _stats(self, scheduler_output: SchedulerOutput, started: float) -> StepStats:
        scheduler, handles = self._scheduler, self._handles
        cache = scheduler.kv_cache_manager
        # a device begins with a step that was started early when the one before it has ended
        start, now = max(started, self._last_end), time.perf_counter()
        self._last_end = now
        num_tokens = scheduler_output.total_num_scheduled_tokens
        num_prefill = scheduler_output.num_prefill_tokens
        preempted, num_compiling = scheduler_output.preempted_req_ids, self._num_compiling()
        return StepStats(
            scheduler_output.step,
            start,
            now - start,
            len(scheduler.running),
            len(scheduler.waiting) + num_compiling,
            cache.num_used_blocks,
            num_tokens,
            num_prefill,
            num_tokens - num_prefill,
            [handles[core_id] for core_id in preempted if core_id in handles],
            scheduler.num_preemptions,
            cache.num_queried_tokens,
            cache.num_hit_tokens,
            self._num_drafts,
            self._num_draft_tokens,
            self._num_accepted_tokens,
            self._accepted_at.copy(),
            num_compiling,
        )
