"""Finds out when nothing moves any more, and ends the request that is to blame.

A request may outgrow the whole KV cache by its answer, and a policy may leave everybody idle. Both
would otherwise wait for ever.
"""

from workbench.errors import SchedulerError
from workbench.outputs import SchedulerOutput
from workbench.request import Request
from workbench.scheduler.feasibility import why_outgrown
from workbench.scheduler.state import SchedulerState

MAX_IDLE_STEPS = 64


class StuckWatch:
    """Watches the steps of one scheduler.

    Args:
        state: The scheduler's lists.
        batch_policy_name: To be named where it lets nobody go on.

    Attributes:
        has_tried_to_admit: Whether a waiting request was considered since the last step with
            tokens.
    """

    def __init__(self, state: SchedulerState, batch_policy_name: str) -> None:
        self._state = state
        self._batch_policy_name = batch_policy_name
        self._num_idle_steps = 0
        self.has_tried_to_admit = False

    def note_progress(self) -> None:
        """A step has tokens."""
        self._num_idle_steps = 0
        self.has_tried_to_admit = False

    def end_stuck_request(self, scheduler_output: SchedulerOutput) -> None:
        """See Scheduler."""
        state = self._state
        for request_id in scheduler_output.preempted_req_ids:
            # The queue may put another one first, which would then be admitted instead, for ever.
            request = state.requests.get(request_id)
            if request and self._has_outgrown(request):
                self._fail(request)
        if any(step.output.total_num_scheduled_tokens for step in state.in_flight):
            return
        if not state.running and len(state.waiting):
            request = state.waiting.peek()
            if self._has_outgrown(request):
                self._fail(request)
                return
        if state.requests and not scheduler_output.preempted_req_ids:
            self._count_idle_step()

    def _count_idle_step(self) -> None:
        state = self._state
        self._num_idle_steps += 1
        if self._num_idle_steps <= MAX_IDLE_STEPS:
            return
        if not state.running and self.has_tried_to_admit:
            # The whole machine is idle and still it does not get in: it never will.
            self._fail(state.waiting.peek())
            self._num_idle_steps = 0
            return
        raise SchedulerError(
            f"{self._batch_policy_name} scheduled nothing in {MAX_IDLE_STEPS} steps while "
            f"{len(state.running)} requests run and {len(state.waiting)} wait: "
            "a batch policy must let somebody go on"
        )

    def _has_outgrown(self, request: Request) -> bool:
        return not self._state.kv_cache_manager.fits_alone(request, request.num_tokens)

    def _fail(self, request: Request) -> None:
        self._state.fail(request, why_outgrown(request, self._state.kv_cache_manager))
