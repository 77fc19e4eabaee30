"""The batch policy's hands: the verbs and numbers of BatchBuilder on a step under construction."""

from collections.abc import Callable
from numbers import Integral

from workbench.errors import SchedulerError
from workbench.scheduler.batch import Batch
from workbench.scheduler.batch_policy import BatchPolicy
from workbench.scheduler.running_pass import RunningPass
from workbench.scheduler.state import SchedulerState


class StepBuilder:
    """See BatchBuilder.

    Args:
        batch: The step.
        now: Seconds on the engine's clock.
        state: The scheduler's lists.
        running_pass: Schedules running requests.
        admit: Schedules waiting ones: (batch, now, whole_prompts).
        policy: Whose hands they are.
    """

    __slots__ = ("_admit", "_batch", "_now", "_policy", "_running_pass", "_state")

    def __init__(
        self,
        batch: Batch,
        now: float,
        state: SchedulerState,
        running_pass: RunningPass,
        admit: Callable[[Batch, float, bool], None],
        policy: BatchPolicy,
    ) -> None:
        self._batch = batch
        self._now = now
        self._state = state
        self._running_pass = running_pass
        self._admit = admit
        self._policy = policy

    @property
    def token_budget(self) -> int:
        """Tokens that may still be scheduled."""
        return self._batch.token_budget

    @token_budget.setter
    def token_budget(self, value: int) -> None:
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
            raise SchedulerError(
                f"{type(self._policy).__name__} set token_budget={value!r}: it must be a whole "
                f"number from 0 to the {self._batch.token_budget} tokens that are left"
            )
        self._batch.token_budget = min(int(value), self._batch.token_budget)

    @property
    def num_scheduled_tokens(self) -> int:
        """Tokens scheduled so far."""
        cohort = self._state.cohort.size if self._batch.has_cohort else 0
        return sum(self._batch.rows.values()) + cohort

    @property
    def num_running(self) -> int:
        """Running requests."""
        return len(self._state.running)

    @property
    def num_waiting(self) -> int:
        """Waiting requests."""
        return len(self._state.waiting)

    @property
    def has_preempted(self) -> bool:
        """Whether this step has thrown a request out."""
        return bool(self._batch.preempted)

    def continue_running(self, *, decodes: bool = True, prefills: bool = True) -> None:
        """Schedule running requests."""
        self._running_pass.run(self._batch, decodes, prefills)

    def admit_waiting(self, *, whole_prompts: bool = False) -> None:
        """Admit waiting requests."""
        self._admit(self._batch, self._now, whole_prompts)
