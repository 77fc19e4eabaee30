"""How much of prompts a step may compute, by vLLM's two rules beside the token budget.

A long prompt gets at most a threshold of tokens a step while others wait or run, and with an
interval, only every so many steps carry prompt tokens at all.
"""

from workbench.scheduler.batch import Batch
from workbench.scheduler.completion_pass import CompletionPass
from workbench.scheduler.state import SchedulerState


class PrefillLimits:
    """The limits of one scheduler.

    Args:
        state: The scheduler's lists.
        steps: Which steps have carried prompt tokens.
    """

    def __init__(self, state: SchedulerState, steps: CompletionPass) -> None:
        self._state = state
        self._steps = steps
        config = state.config
        self._has_limits = (
            config.long_prefill_token_threshold > 0 or config.prefill_schedule_interval > 1
        )
        self._is_capacity_bound = False

    def set(self, batch: Batch) -> None:
        """Write the limits of a step into it, before anything is scheduled."""
        if not self._has_limits:
            return
        state, config = self._state, self._state.config
        num_requests = len(state.running) + len(state.waiting)
        threshold = config.long_prefill_token_threshold if num_requests > 1 else 0
        if threshold and config.long_prefill_token_threshold_adaptive:
            threshold = max(threshold, config.max_num_batched_tokens // num_requests)
        batch.long_prefill_token_threshold = threshold
        interval = config.prefill_schedule_interval
        if interval > 1 and not self._is_capacity_bound:
            steps = self._steps
            too_soon = steps.num_executed_steps + 1 - steps.last_prefill_step < interval
            batch.defer_prefills = too_soon and any(not r.is_prefill_chunk for r in state.running)

    def note_admissions(self, batch: Batch) -> None:
        """Waiting requests were considered: those left over lift the interval."""
        if not batch.defer_prefills:
            state = self._state
            self._is_capacity_bound = len(state.waiting) > len(state.skipped)
