"""Closes a step: counts its tokens as computed, describes its shape and puts it in flight.

By now every decision is taken; this pass takes none.
"""

from workbench.outputs import NO_ROWS, BatchRows
from workbench.request import Request
from workbench.scheduler.admission_pass import PLACEHOLDER_TOKEN
from workbench.scheduler.batch import Batch
from workbench.scheduler.state import InFlightStep, SchedulerState


class CompletionPass:
    """Completes steps.

    Args:
        state: The scheduler's lists.

    Attributes:
        num_executed_steps: Steps with tokens so far.
        last_prefill_step: The last of them that carried prompt tokens.
    """

    def __init__(self, state: SchedulerState) -> None:
        self._state = state
        self.num_executed_steps = 0
        self.last_prefill_step = -state.config.prefill_schedule_interval
        self._last_prefill_tokens = 0
        self._plain_rows = NO_ROWS
        self._plain_rows_version = -1

    @property
    def last_step_was_plain(self) -> bool:
        """Whether the last step was one of nothing but decodes of all that run now."""
        return self._plain_rows_version == self._state.version

    def run(self, batch: Batch) -> None:
        """Count the step's tokens as computed, describe its shape and put it in flight."""
        state, output = self._state, batch.output
        shape, cohort = output.shape, state.cohort
        num_rows = len(batch.rows)
        tick = 0
        if batch.has_cohort and cohort.size:
            tick = cohort.schedule_tick()
            shape.num_decodes = shape.num_samples = cohort.size
            shape.decode_context = cohort.context_tokens
            num_rows += cohort.size
        if batch.preempted or output.swap_in:
            shape.num_swap_blocks = sum(len(c.device_blocks) for c in output.swap_out) + sum(
                len(c.device_blocks) for c in output.swap_in
            )
        step = InFlightStep(output, tick, batch.rows)
        for request, num_tokens in batch.rows.items():
            self._advance(request, num_tokens, step)
        if batch.rows and cohort.size:
            state.others = [r for r in state.others if r._cohort is None]
        output.total_num_scheduled_tokens = shape.num_tokens
        output._rows = self._rows_of(batch, num_rows, tick)
        output.num_running = len(state.running)
        output.num_waiting = len(state.waiting)
        cache = state.kv_cache_manager
        output.num_used_blocks = cache.num_used_blocks
        shape.shared_context = cache.num_shared_tokens
        shape.prefill_tokens_before = self._last_prefill_tokens
        state.in_flight.append(step)
        self._count_step(batch, num_rows)

    def _rows_of(self, batch: Batch, num_rows: int, tick: int) -> BatchRows:
        """The step's rows; those of the step before, where nothing has changed since."""
        state = self._state
        is_plain = not batch.rows and num_rows == len(state.running)
        if is_plain and self._plain_rows_version == state.version:
            return self._plain_rows
        if num_rows == len(state.running):
            requests = state.running.copy()
        else:
            requests = [
                r
                for r in state.running
                if r in batch.rows or (r._cohort is not None and r._joined_tick < tick)
            ]
        rows = BatchRows(requests, batch.rows)
        if is_plain:
            self._plain_rows, self._plain_rows_version = rows, state.version
        return rows

    def _advance(self, request: Request, num_tokens: int, step: InFlightStep) -> None:
        state, output = self._state, step.output
        shape = output.shape
        drafts = output.scheduled_spec_decode_tokens.get(request.request_id, ())
        computed = request._num_computed_tokens
        if num_tokens == 1:
            shape.num_decodes += 1
            shape.decode_context += computed + 1
        else:
            shape.prefills.append((num_tokens, computed))
        promised = request.num_tokens + request._output_placeholders
        computed += num_tokens
        request._num_computed_tokens = computed
        request._in_flight_tokens += num_tokens
        request.is_prefill_chunk = computed < promised
        num_known = num_tokens - len(drafts)
        if num_known > 1 or computed - num_tokens < request.num_prompt_tokens:
            output.num_prefill_tokens += num_known
        if request.is_prefill_chunk:
            step.silent.add(request)
            return
        shape.num_samples += 1 + len(drafts)
        if self._state.config.async_scheduling:
            request._output_placeholders += 1 + len(drafts)
            request.spec_token_ids = [PLACEHOLDER_TOKEN] * self._state.config.num_speculative_tokens
        if state.use_cohort:
            self._join_cohort(request)

    def _join_cohort(self, request: Request) -> None:
        state = self._state
        remaining = request.last_scheduled_token - request._num_computed_tokens
        if remaining > 0:
            quiet = self._state.kv_cache_manager.quiet_tokens(request)
            state.cohort.join(request, min(quiet, remaining) + 1, remaining)

    def _count_step(self, batch: Batch, num_rows: int) -> None:
        if num_rows:
            self.num_executed_steps += 1
            self._last_prefill_tokens = batch.output.num_prefill_tokens
        if batch.prefill_continued or batch.prefill_admitted:
            self.last_prefill_step = self.num_executed_steps
