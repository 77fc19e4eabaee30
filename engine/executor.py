"""The real world's Executor: hands the steps to the model runner, in order.

Three ways to run, one interface. In line: the caller waits while a step is computed (a CPU, without
asynchronous scheduling). In a worker thread: the caller schedules the next step meanwhile. On the
device's stream: launches return at once, and the result waits for its own copy. This file knows
threads; it knows nothing of what a step holds.
"""

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from engine.model_runner import ModelRunner
from workbench.executor import Pending
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.structured_output import GrammarOutput


class InlineExecutor:
    """Runs a step in the caller's thread.

    Args:
        runner: Runs the model.
    """

    def __init__(self, runner: ModelRunner) -> None:
        self.runner = runner

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        """Start the forward pass of a step."""
        self.runner.execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> Pending:
        """Start the sampling of the step started last; `result()` gives its output."""
        return self.runner.sample_tokens(grammar_output)

    def shutdown(self) -> None:
        """Nothing to give back."""


class ThreadedExecutor:
    """Runs the steps in one worker thread, in the order in which they were started.

    An error of the runner is raised by `result()` of its step.

    Args:
        runner: Runs the model.
        device: Where it runs it.
    """

    def __init__(self, runner: ModelRunner, device: torch.device) -> None:
        self.runner = runner
        self._worker = ThreadPoolExecutor(1, "model-runner", _use, (device,))
        self._forward: Future[None] | None = None

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        """Start the forward pass of a step; does not wait."""
        self._forward = self._worker.submit(self.runner.execute_model, scheduler_output)

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> Pending:
        """Start the sampling of the step started last; `result()` gives its output."""
        forward = self._forward
        assert forward is not None, "execute_model comes first"
        return self._worker.submit(self._sample, forward, grammar_output)

    def _sample(
        self, forward: Future[None], grammar_output: GrammarOutput | None
    ) -> ModelRunnerOutput:
        forward.result()
        output: ModelRunnerOutput = self.runner.sample_tokens(grammar_output).result()
        return output

    def shutdown(self) -> None:
        """End the worker once its steps are done."""
        self._worker.shutdown()


def _use(device: torch.device) -> None:
    """Make a GPU the current one of this thread: a new thread begins with the first."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


EngineExecutor = InlineExecutor | ThreadedExecutor
