"""A scheduler that somebody looks at after each step: it decides what any other one decides."""

from collections.abc import Callable
from typing import Any

from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput, SchedulerOutput
from workbench.scheduler.scheduler import Scheduler

OnStep = Callable[[Scheduler, SchedulerOutput, EngineCoreOutputs, float], None]
"""(scheduler, a step, what it gave, seconds at which its results came); it must change nothing."""


class WatchedScheduler(Scheduler):
    """Calls after every step whose results it has taken in.

    Args:
        on_step: Is called.
        args, settings: See Scheduler.
    """

    def __init__(self, on_step: OnStep, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._on_step = on_step

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_output: ModelRunnerOutput, now: float
    ) -> EngineCoreOutputs:
        outputs = super().update_from_output(scheduler_output, model_output, now)
        self._on_step(self, scheduler_output, outputs, now)
        return outputs
