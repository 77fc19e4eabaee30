"""The engine core: schedule, execute, update; the same bytes in the simulated and the real world.

A step is a generator that yields what it waits for. A simulated world yields it to its event loop
(`outputs = yield from core.step()`); a real one waits for it and sends the result.
"""

from collections import deque
from collections.abc import Generator, Iterable

from workbench.executor import Clock, Executor, Pending
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput, SchedulerOutput
from workbench.request import Request
from workbench.scheduler.scheduler import Scheduler

Step = Generator[Pending, ModelRunnerOutput, EngineCoreOutputs]


class EngineCore:
    """Runs one step after the other.

    Args:
        scheduler: Decides.
        executor: Runs the model.
        clock: The time.
    """

    def __init__(self, scheduler: Scheduler, executor: Executor, clock: Clock) -> None:
        self.scheduler = scheduler
        self.executor = executor
        self.clock = clock

    @property
    def has_work(self) -> bool:
        """Whether a step has anything to do."""
        return self.scheduler.has_requests

    def add_request(self, request: Request) -> bool:
        """Queue a request; False if it can never run, and has ended as ignored."""
        if self.scheduler.why_ignored(request) is not None:
            self.scheduler.ignore_request(request)
            return False
        self.scheduler.add_request(request, self.clock())
        return True

    def abort_requests(self, request_ids: Iterable[str]) -> list[Request]:
        """End requests at once."""
        return self.scheduler.abort_requests(request_ids)

    def step(self) -> Step:
        """Schedule, execute, update."""
        scheduler_output = self._execute()
        model_output = yield self._sample(scheduler_output)
        return self.scheduler.update_from_output(scheduler_output, model_output, self.clock())

    def _execute(self) -> SchedulerOutput:
        scheduler_output = self.scheduler.schedule(self.clock())
        if not scheduler_output.total_num_scheduled_tokens:
            self.scheduler.end_stuck_request(scheduler_output)
        self.executor.execute_model(scheduler_output)
        return scheduler_output

    def _sample(self, scheduler_output: SchedulerOutput) -> Pending:
        # made here, while the device works on the forward pass
        grammar_output = self.scheduler.get_grammar_bitmask(scheduler_output)
        return self.executor.sample_tokens(grammar_output)


class PipelinedEngineCore(EngineCore):
    """Keeps several steps in flight: asynchronous scheduling, or the stages of a pipeline.

    Args:
        scheduler, executor, clock: As above.
        max_concurrent_batches: Steps in flight at once.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        clock: Clock,
        max_concurrent_batches: int = 2,
    ) -> None:
        super().__init__(scheduler, executor, clock)
        self._max_concurrent_batches = max_concurrent_batches
        self._in_flight: deque[tuple[SchedulerOutput, Pending]] = deque()
        # The step started last, where its bitmask needs tokens of steps in flight.
        self._unsampled: SchedulerOutput | None = None

    @property
    def has_work(self) -> bool:
        return bool(self._in_flight) or self.scheduler.has_requests

    def step(self) -> Step:
        """Schedule one more step if there is room; take in the oldest if there is none left.

        A step that fills the pipeline returns no outputs.
        """
        in_flight = self._in_flight
        if self._unsampled is None and self.scheduler.has_requests:
            scheduler_output = self._execute()
            if in_flight and self.scheduler.grammar_waits(scheduler_output):
                self._unsampled = scheduler_output
            else:
                in_flight.append((scheduler_output, self._sample(scheduler_output)))
                has_more = (
                    scheduler_output.total_num_scheduled_tokens or self.scheduler.has_requests
                )
                if len(in_flight) < self._max_concurrent_batches and has_more:
                    return EngineCoreOutputs()
        scheduler_output, pending = in_flight.popleft()
        model_output = yield pending
        outputs = self.scheduler.update_from_output(scheduler_output, model_output, self.clock())
        self._sample_late()
        return outputs

    def _sample_late(self) -> None:
        """Start the sampling of the step that waited for tokens, if they have come by now."""
        late = self._unsampled
        if late is not None and not (self._in_flight and self.scheduler.grammar_waits(late)):
            self._in_flight.append((late, self._sample(late)))
            self._unsampled = None
