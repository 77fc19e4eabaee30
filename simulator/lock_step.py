"""Replicas that step together: data-parallel ranks which share the experts of a mixture.

Every layer gathers the tokens of all ranks for its experts and scatters them back, so no rank is
ahead of another. A rank without work of its own runs an empty batch along with the others, because
its experts are needed.

Knows which rank has handed in its next step, and when the device is free for the next one of all.
It does not know what a rank's step holds for its requests.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import simpy

from simulator.cost_models.base import CostModel
from simulator.environment import SimulationEnvironment
from simulator.executor import SimulatedExecutor
from simulator.token_source import TokenSource
from workbench.errors import CostModelError
from workbench.metrics import StepLog
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.scheduler.scheduler import Scheduler
from workbench.step_profile import StepShape

Begun = Callable[[float, float], None]


class _Handed:
    """A step that waits for those of the other ranks."""

    __slots__ = ("begun", "event", "output", "ready_at", "shape")

    def __init__(
        self,
        event: simpy.Event,
        output: ModelRunnerOutput,
        shape: StepShape,
        ready_at: float,
        begun: Begun,
    ) -> None:
        self.event, self.output, self.shape = event, output, shape
        self.ready_at, self.begun = ready_at, begun


class LockStep:
    """The device of several ranks: their n-th steps run at the same time and take equally long.

    Args:
        env: Simulated time.
        cost_model: Prices the steps of all ranks together (`group_step_time`).
        num_ranks: Ranks of the group.
    """

    def __init__(self, env: SimulationEnvironment, cost_model: CostModel, num_ranks: int) -> None:
        self._env = env
        self._cost_model = cost_model
        self._handed: list[deque[_Handed]] = [deque() for _ in range(num_ranks)]
        self._is_busy: list[Callable[[], bool]] = []
        self._free_at = 0.0

    def join(self, is_busy: Callable[[], bool]) -> None:
        """Take in the next rank; `is_busy` tells whether it has work, and will hand in a step."""
        self._is_busy.append(is_busy)

    def hand_in(
        self,
        rank: int,
        shape: StepShape,
        output: ModelRunnerOutput,
        ready_at: float,
        begun: Begun,
    ) -> simpy.Event:
        """Hand in a rank's next step.

        Args:
            rank: Number in the group, from 0.
            shape, output: The step and its answer.
            ready_at: Seconds; it cannot begin before.
            begun: Called with (start, duration), both in seconds, once they are known.

        Returns:
            An event with the answer, at the end of the step.
        """
        event = simpy.Event(self._env)
        self._handed[rank].append(_Handed(event, output, shape, ready_at, begun))
        self.look()
        return event

    def look(self) -> None:
        """Begin every step that waits for no rank any more; to be called when a rank falls idle."""
        while any(self._handed) and all(
            handed or not is_busy()
            for handed, is_busy in zip(self._handed, self._is_busy, strict=True)
        ):
            self._begin([handed.popleft() if handed else None for handed in self._handed])

    def _begin(self, steps: list[_Handed | None]) -> None:
        env = self._env
        taking_part = [step for step in steps if step is not None]
        start = max(env.now, self._free_at, *(step.ready_at for step in taking_part))
        shapes = [StepShape() if step is None else step.shape for step in steps]
        self._cost_model.tell_time(start)
        duration = self._cost_model.group_step_time(shapes)
        if not 0.0 <= duration < math.inf:
            raise CostModelError(
                f"{type(self._cost_model).__name__} prices a step of {len(shapes)} ranks at"
                f" {duration} s: it must be a finite number of at least 0; check its settings"
            )
        self._free_at = end = start + duration
        for step in taking_part:
            step.begun(start, duration)
            env.succeed_at(step.event, end, step.output)


class LockStepExecutor(SimulatedExecutor):
    """The executor of one rank.

    Args:
        env, cost_model, token_source, step_log, replica: As in SimulatedExecutor.
        group: The ranks' common device; `replica` is the rank.
    """

    def __init__(
        self,
        env: SimulationEnvironment,
        cost_model: CostModel,
        token_source: TokenSource,
        step_log: StepLog,
        replica: int,
        group: LockStep,
    ) -> None:
        super().__init__(env, cost_model, token_source, step_log, replica)
        self._group = group
        self._pending: simpy.Event | None = None

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        output, shape = scheduler_output, scheduler_output.shape
        self._pending = None
        if not output.total_num_scheduled_tokens:
            super().execute_model(output)
            return
        if self._longest is not None:
            shape.longest_decode = self._longest.of_step(output)
        if self._is_bounded and self._cost_model.is_extrapolated(shape):
            self.num_extrapolated += 1

        def begun(start: float, duration: float) -> None:
            self._log_step(output, start, duration)

        answer = self._sample(output)
        self._pending = self._group.hand_in(self._replica, shape, answer, self._env.now, begun)

    def rest(self) -> None:
        self._group.look()

    def sample_tokens(self, grammar_output: Any) -> simpy.Event:
        return self._pending or super().sample_tokens(grammar_output)

    def decode_ahead(self, scheduler: Scheduler, horizon: float) -> float:
        """Takes no step: the other ranks would have to take it, too."""
        return self._env.now
