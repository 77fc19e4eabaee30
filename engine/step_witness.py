"""Keeps the steps in flight for whoever reports them.

Knows an executor; decides nothing.
"""

import time
from collections import deque
from typing import Any

from workbench.executor import Executor, Pending
from workbench.outputs import SchedulerOutput


class StepWitness:
    """An Executor that remembers the steps in flight, oldest first, and passes everything on.

    Args:
        executor: Does the work.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.in_flight: deque[tuple[SchedulerOutput, float]] = deque()

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        """Start the forward pass of a step."""
        self.in_flight.append((scheduler_output, time.perf_counter()))
        self._executor.execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> Pending:
        """Start the sampling of the step started last."""
        return self._executor.sample_tokens(grammar_output)
