"""Writes the log of steps that the metrics read, around an executor that does the work.

The log has the same columns as a simulated one: when the device began with a step, for how long it
was busy, and what the step held. A device works on one step at a time, so a step that was started
early begins when the one before it has ended.
"""

from typing import Any

from engine.executor import EngineExecutor
from workbench.executor import Clock, Pending
from workbench.metrics import StepLog
from workbench.outputs import ModelRunnerOutput, SchedulerOutput


class _Recorded:
    """A pending result that is logged when it has come."""

    def __init__(
        self, pending: Pending, recorder: "StepRecorder", output: SchedulerOutput, started: float
    ) -> None:
        self._pending = pending
        self._recorder = recorder
        self._output = output
        self._started = started

    def result(self) -> ModelRunnerOutput:
        """The step's output."""
        result: ModelRunnerOutput = self._pending.result()
        self._recorder.log(self._output, self._started)
        return result


class StepRecorder:
    """An Executor that logs what another one does.

    Args:
        executor: Does the work.
        clock: The core's.
        steps: The log.
    """

    def __init__(self, executor: EngineExecutor, clock: Clock, steps: StepLog) -> None:
        self._executor = executor
        self._clock = clock
        self._steps = steps
        self._free_at = 0.0
        self._started = 0.0
        self._output: SchedulerOutput | None = None

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        """Start the forward pass of a step."""
        self._output = scheduler_output
        self._started = self._clock()
        self._executor.execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> Pending:
        """Start the sampling of the step started last."""
        assert self._output is not None, "execute_model comes first"
        pending = self._executor.sample_tokens(grammar_output)
        return _Recorded(pending, self, self._output, self._started)

    def log(self, output: SchedulerOutput, started: float) -> None:
        """Log a step that has ended now."""
        start, now = max(started, self._free_at), self._clock()
        self._free_at = now
        num_tokens = output.total_num_scheduled_tokens
        # a step of nothing but copies to the host takes its time as well
        if num_tokens or output.swap_out or output.swap_in:
            self._steps.append(
                0,
                start,
                now - start,
                num_tokens,
                output.num_prefill_tokens,
                num_tokens - output.num_prefill_tokens,
                output.num_running,
                output.num_waiting,
                len(output.preempted_req_ids),
                output.num_used_blocks,
            )
        else:
            self._steps.note_preemptions(0, len(output.preempted_req_ids))
