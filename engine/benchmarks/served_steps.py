"""Times the steps of a run that serves requests, as the serving loop sees them.

A step's seconds are those from the end of the step before to its own end: outputs, arrivals and the
scheduler are in them. `host_s` is the part before the device gets the step. Steps that the engine
began after it had nothing to do have no such beginning and are kept apart.
"""

import time
from dataclasses import dataclass, field, replace
from typing import Any

from engine.build import EngineParts
from engine.executor import EngineExecutor
from engine.serving_run import ServingRun
from workbench.executor import Pending
from workbench.metrics import RunResult
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.step_profile import MeasuredStep, StepShape
from workbench.workload.base import Workload


@dataclass(slots=True)
class ServedSteps:
    """The steps of a run.

    Attributes:
        busy: Steps that followed another one at once.
        first: Steps after a pause; their seconds begin when the device gets them.
        busy_ends, first_ends: When each of them ended, time.perf_counter().
    """

    busy: list[MeasuredStep] = field(default_factory=list)
    first: list[MeasuredStep] = field(default_factory=list)
    busy_ends: list[float] = field(default_factory=list)
    first_ends: list[float] = field(default_factory=list)


class _Timed:
    """A pending result whose coming is noted."""

    def __init__(
        self, timer: "StepTimer", pending: Pending, output: SchedulerOutput, started: float
    ) -> None:
        self._timer, self._pending = timer, pending
        self._output, self._shape = output, _copy(output)
        self._started = started

    def result(self) -> ModelRunnerOutput:
        """The step's output."""
        result: ModelRunnerOutput = self._pending.result()
        self._timer.note(self._output, self._shape, self._started)
        return result


class StepTimer:
    """An executor that times what another one does, and does not shut it down.

    Args:
        executor: Does the work.
        source: Of the measured steps.
        is_overlapped: Steps are started before the last one has ended: the host's share is hidden,
            and what is seen of a step is all device.
    """

    def __init__(self, executor: EngineExecutor, source: str, is_overlapped: bool = False) -> None:
        self.steps = ServedSteps()
        self.runner = executor.runner
        self._executor, self._source = executor, source
        self._is_overlapped = is_overlapped
        self._ended: float | None = None
        self._num_left = 0
        self._output: SchedulerOutput | None = None
        self._started = 0.0

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        """Start the forward pass of a step."""
        if len(scheduler_output.finished_req_ids) >= self._num_left:
            self._ended = None  # nobody was left: the engine had nothing to do
        self._num_left = scheduler_output.num_running + scheduler_output.num_waiting
        self._output, self._started = scheduler_output, time.perf_counter()
        self._executor.execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> Pending:
        """Start the sampling of the step started last."""
        assert self._output is not None, "execute_model comes first"
        pending = self._executor.sample_tokens(grammar_output)
        return _Timed(self, pending, self._output, self._started)

    def note(self, output: SchedulerOutput, shape: StepShape, started: float) -> None:
        """A step has ended now."""
        now, ended = time.perf_counter(), self._ended
        self._ended = now
        if not output.total_num_scheduled_tokens:
            return
        if ended is None:
            self.steps.first.append(MeasuredStep(shape, now - started, source=self._source))
            self.steps.first_ends.append(now)
            return
        host_s = 0.0 if self._is_overlapped else max(started - ended, 0.0)
        self.steps.busy.append(MeasuredStep(shape, now - ended, host_s, self._source))
        self.steps.busy_ends.append(now)

    def shutdown(self) -> None:
        """Nothing: the engine goes on."""


def serve(
    parts: EngineParts, workload: Workload, source: str, seed: int = 0
) -> tuple[RunResult, ServedSteps]:
    """Serve a workload and time its steps; the engine can be used again."""
    timer = StepTimer(parts.executor, source, parts.scheduler_config.async_scheduling)
    timed: Any = timer
    result = ServingRun(replace(parts, executor=timed), workload, seed).run()
    return result, timer.steps


def _copy(output: SchedulerOutput) -> StepShape:
    shape = output.shape
    return replace(
        shape, prefills=list(shape.prefills), longest_decode=output.rows.longest_decode()
    )
