"""What a replay puts in the place of chance: recorded step times, tokens and turns.

Knows a recording and the three places of a simulated server where it comes in: the cost model, the
token source, and the moment at which a step begins. It decides nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import simpy

from simulator.cost_models.base import CostModel
from simulator.environment import SimulationEnvironment
from simulator.executor import SimulatedExecutor
from simulator.token_source import TokenSource
from workbench.engine_core import EngineCore, Step
from workbench.executor import Clock, Pending
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput, SchedulerOutput
from workbench.recording import SAME, Recording, ScheduleEvent, ScheduleLines, UpdateEvent
from workbench.request import Request
from workbench.step_profile import StepShape

NOTHING = "nothing"
# decisions whose keys are the ids of requests
BY_REQUEST = ("num_scheduled_tokens", "new_block_ids", "scheduled_spec_decode_tokens")


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing in which a replay is not what was recorded.

    Attributes:
        step: Number of the step; for what happens between steps: of the step to come.
        field: What differs.
        expected, got: What was recorded, and what the simulated server has.
    """

    step: int
    field: str
    expected: Any
    got: Any


class DivergenceError(Exception):
    """A replay has left the recorded way; its argument is the Difference."""


def divergence(step: int, field: str, expected: Any, got: Any) -> DivergenceError:
    """The error to raise at a difference."""
    return DivergenceError(Difference(step, field, expected, got))


class PacedCore(EngineCore):
    """An engine core that begins its steps when it is told to.

    Attributes:
        has_updated: Happens when the next step has been taken in.
        ends: Who ended in the step that was taken in last, and why.
        updated_at: When that was, seconds.
    """

    def __init__(self, env: SimulationEnvironment, core: EngineCore) -> None:
        super().__init__(core.scheduler, core.executor, core.clock)
        self._env = env
        self._core = core
        self._turn: simpy.Event | None = None
        self.has_updated = env.event()
        self.ends: dict[str, str | None] = {}
        self.updated_at = 0.0

    @property
    def has_work(self) -> bool:
        return self._core.has_work

    def add_request(self, request: Request) -> bool:
        return self._core.add_request(request)

    def step(self) -> Step:
        self._turn = self._env.event()
        yield self._turn
        step = self._core.step()
        outputs: EngineCoreOutputs
        try:
            pending = next(step)
        except StopIteration as filled:
            outputs = filled.value
            return outputs
        try:
            step.send((yield pending))
        except StopIteration as done:
            outputs = done.value
        self.ends = {request.request_id: request.finish_reason for request in outputs.finished}
        self.updated_at = self._env.now
        self.has_updated.succeed()
        return outputs

    def take_turn(self) -> simpy.Event | None:
        """Let the step begin for which the replica waits; None if it waits for none."""
        turn, self._turn = self._turn, None
        return None if turn is None else turn.succeed()

    def await_update(self) -> None:
        """Make `has_updated` the event of one more step."""
        self.has_updated = self._env.event()


class RecordedTimes(CostModel):
    """The n-th step that uses the device takes as long as the n-th one did."""

    is_repeatable = False
    is_replay = True

    def __init__(self, recording: Recording) -> None:
        self._durations = _durations(recording)

    def step_time(self, shape: StepShape) -> float:
        # a replay that has gone astray may ask for more, and is stopped in the same step
        return next(self._durations, 0.0)


def _durations(recording: Recording) -> Iterator[float]:
    """Seconds for which the device is busy with each step; it works on one at a time."""
    ends = {event.step: event.now for event in recording.events if isinstance(event, UpdateEvent)}
    free_at = 0.0
    for event in recording.events:
        if isinstance(event, ScheduleEvent) and event.uses_device:
            start = max(event.now, free_at)
            free_at = max(ends.get(event.step, start), start)
            yield free_at - start


class RecordedExecutor(SimulatedExecutor):
    """A simulated device whose results come at the recorded times, to the bit.

    The sum of a start and a duration is not always the recorded end in floating point.
    """

    def __init__(self, recording: Recording, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        updates = [event for event in recording.events if isinstance(event, UpdateEvent)]
        self._end_of = {event.step: event.now for event in updates}
        self._step = 0

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        self._step = scheduler_output.step
        super().execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> Pending:
        return self._env.timeout_at(self._end_of.get(self._step, self._answer_at), self._output)


class RecordedAnswers(TokenSource):
    """The recorded tokens, for a step that was decided as recorded.

    Attributes:
        num_recorded: Steps of the recording.
        num_asked: Steps that were scheduled again.
        num_equal: Those that are equal to the recorded ones.
    """

    def __init__(self, recording: Recording, clock: Clock) -> None:
        events = recording.events
        self._clock = clock
        self._decisions = [event for event in events if isinstance(event, ScheduleEvent)]
        self._answers = {event.step: event for event in events if isinstance(event, UpdateEvent)}
        self._lines = ScheduleLines()
        self._rows: dict[str, int] = {}
        self.num_recorded = len(self._decisions)
        self.num_asked = 0
        self.num_equal = 0

    def sample(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        number = self.num_asked
        self.num_asked += 1
        if number >= self.num_recorded:
            raise divergence(number, "step", NOTHING, "a step")
        event = self._decisions[number]
        line = self._lines.line(self._clock(), scheduler_output)
        if line != event.line:
            self._compare(event, line)
        self._rows = scheduler_output.num_scheduled_tokens
        self.num_equal += 1
        answer = self._answers.get(event.step)
        # a run that was broken off has steps that never returned
        return ModelRunnerOutput() if answer is None else answer.model_output()

    def _compare(self, event: ScheduleEvent, line: str) -> None:
        """Raise the first difference between a recorded step and a line of the same kind."""
        expected, got = json.loads(event.line), json.loads(line)
        if expected["now"] != got["now"]:
            raise divergence(event.step, "now of schedule", expected["now"], got["now"])
        wanted, have = self._decisions_of(expected), self._decisions_of(got)
        for name, value in wanted.items():
            own = have.get(name)
            if name not in BY_REQUEST:
                own = _as_recorded(value, own)
            # the order of a batch is a decision as well, and dicts are equal in any order
            if json.dumps(own) != json.dumps(value):
                raise divergence(event.step, name, value, own)

    def _decisions_of(self, values: dict[str, Any]) -> dict[str, Any]:
        decisions: dict[str, Any] = values["decisions"]
        if decisions["num_scheduled_tokens"] == SAME:
            decisions["num_scheduled_tokens"] = self._rows
        return decisions


def _as_recorded(expected: Any, got: Any) -> Any:
    """`got` with those fields of its records that were recorded: later code may know more."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return {name: _as_recorded(value, got.get(name)) for name, value in expected.items()}
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        return [_as_recorded(*pair) for pair in zip(expected, got, strict=True)]
    return got
