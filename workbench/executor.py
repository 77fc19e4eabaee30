"""The seam: what the engine core asks of the world it runs in.

The simulator and the real engine both implement these protocols; the core imports neither.
"""

from typing import Any, Protocol

from workbench.outputs import SchedulerOutput
from workbench.structured_output import GrammarOutput

Pending = Any
"""A step that runs on the device: whatever the world's driver can wait for. Waiting for it gives
the step's ModelRunnerOutput (simpy: an event; the engine: a future)."""


class Clock(Protocol):
    """The time of the world."""

    def __call__(self) -> float:
        """Seconds since the world began."""
        ...


class Executor(Protocol):
    """Runs the model."""

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        """Start the forward pass of a step; does not wait."""
        ...

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> Pending:
        """Start the sampling of the step started last; waiting for the result gives its output.

        Args:
            grammar_output: What its rows may sample; None: anything.
        """
        ...
