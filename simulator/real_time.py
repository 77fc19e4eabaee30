"""The simulated device in scaled real time: behind the same engine core, for real clients.

A step is priced as in a simulation; whoever waits for it sleeps until its end on the wall clock.
Knows prices and the pace that is kept. What tokens are answered, and how long a simulated second
lasts, others know.
"""

from collections.abc import Callable
from dataclasses import dataclass

from simulator.cost_models.base import CostModel
from simulator.drawn_tokens import DrawnTokens
from simulator.executor import SimulatedExecutor
from simulator.scaled_clock import ScaledClock
from simulator.token_source import LengthTokenSource
from workbench.errors import CostModelError
from workbench.executor import Pending
from workbench.metrics import StepLog
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.structured_output import GrammarOutput

# wall seconds of work after which the pace is looked at, and the share that may be lost
LOOK_EVERY_S, MAY_BE_LOST = 5.0, 0.05


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast simulated time passed while there was work.

    Attributes:
        speed: What was asked for.
        busy_s: Simulated seconds in which the device worked.
        lost_s: Simulated seconds in which it stood still, as the host was late.
    """

    speed: float
    busy_s: float
    lost_s: float

    @property
    def reached(self) -> float:
        """The speed that was kept; that asked for where there was nothing to wait for."""
        total = self.busy_s + self.lost_s
        return self.speed * self.busy_s / total if self.busy_s else self.speed


class RealTimeExecutor(SimulatedExecutor):
    """An Executor whose pending steps wait on the wall clock.

    A step that the cost model refuses to price fails its requests, and takes no time.

    Args:
        clock: The core's clock; it is the core's owner who tells it whether there is work.
        cost_model: Seconds a step.
        tokens: The model's answers.
        num_stages, overlaps_host: See SimulatedExecutor.
        tell: Called with a line when the pace was not kept; None: nobody is told.
    """

    def __init__(
        self,
        clock: ScaledClock,
        cost_model: CostModel,
        tokens: DrawnTokens,
        num_stages: int = 1,
        overlaps_host: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        # tokens are drawn once the grammar has spoken, and a server keeps no log
        source, log = LengthTokenSource(), StepLog()
        super().__init__(clock, cost_model, source, log, 0, num_stages, overlaps_host)
        self._clock = clock
        self._tokens = tokens
        self._tell = tell
        self._step: SchedulerOutput | None = None
        self._refused: str | None = None
        self._busy_s = 0.0
        self._looked_at = Pace(clock.speed, 0.0, 0.0)

    @property
    def pace(self) -> Pace:
        """Since the beginning."""
        return Pace(self._clock.speed, self._busy_s, self._clock.lost_s)

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        self._step, self._refused = scheduler_output, None
        try:
            super().execute_model(scheduler_output)
        except CostModelError as error:
            self._refused = str(error)

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> Pending:
        step = self._step
        assert step is not None, "execute_model comes first"
        # the rows after a request's first one are for drafts, of which it accepts none here
        masks = {name: rows[0] for name, rows in grammar_output.items()} if grammar_output else {}
        output = self._tokens.draw(step, masks)
        if self._refused is not None:
            output = self._failed(step, self._refused)
        return self._clock.timeout_at(self._answer_at, output)

    def _failed(self, step: SchedulerOutput, reason: str) -> ModelRunnerOutput:
        requests = step.rows.requests
        failed = dict.fromkeys((r.request_id for r in requests), reason)
        return ModelRunnerOutput([[] for _ in requests], failed=failed)

    def shutdown(self) -> None:
        """Nothing to give back."""

    def _log_step(self, output: SchedulerOutput, start: float, duration: float) -> None:
        self._busy_s += duration
        before, now = self._looked_at, self.pace
        since = Pace(now.speed, now.busy_s - before.busy_s, now.lost_s - before.lost_s)
        total = since.busy_s + since.lost_s
        if total < LOOK_EVERY_S * now.speed:
            return
        self._looked_at = now
        if self._tell is not None and since.busy_s and since.lost_s > MAY_BE_LOST * total:
            self._tell(
                f"the simulation runs at {since.reached:.3g} times real time, not at"
                f" {now.speed:g}: this machine cannot start steps any faster; ask for a lower"
                " speed"
            )
