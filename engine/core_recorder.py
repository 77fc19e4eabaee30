"""Writes down what an engine core is asked, what its clock says, and what it decides.

It stands around a core and passes everything on; the core cannot tell. What is written is enough
for another world to repeat the run (see workbench.recording). It knows no device and no file: a
core whose model is a script is recorded in the same way.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from workbench.engine_core import EngineCore, Step
from workbench.executor import Executor, Pending
from workbench.outputs import EngineCoreOutputs, SchedulerOutput
from workbench.recording import RecordedSettings, RecordingWriter, answer_values
from workbench.request import Request
from workbench.structured_output import GrammarOutput

if TYPE_CHECKING:
    from engine.build import EngineParts


def recorded_settings(
    parts: "EngineParts", policies: Mapping[str, Any] | None = None
) -> RecordedSettings:
    """What the scheduler of an engine is made of.

    Args:
        parts: The engine.
        policies: See RecordedSettings; None: vLLM's choice, with which it must have been built.
    """
    return RecordedSettings(
        scheduler=parts.scheduler_config,
        cache=parts.cache_config,
        num_blocks=parts.num_blocks,
        num_host_blocks=parts.num_host_blocks,
        max_concurrent_batches=2 if parts.scheduler_config.async_scheduling else 1,
        forget_uncomputed_blocks=True,
        policies=policies or {},
    )


class _Witness:
    """The recorded core's executor: the steps pass through it.

    A step is written down once it has been started, while a device that works on its own is busy.
    """

    def __init__(self, executor: Executor, core: "RecordedCore") -> None:
        self.executor = executor
        self._core = core

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        self.executor.execute_model(scheduler_output)
        self._core.note_step(scheduler_output)

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> Pending:
        return self.executor.sample_tokens(grammar_output)


class RecordedCore(EngineCore):
    """An engine core whose calls are written down.

    Args:
        core: Does the work; fresh, with the clock and the executor that it is to have.
        recording: What was asked and decided.
    """

    def __init__(self, core: EngineCore, recording: RecordingWriter) -> None:
        self._witness = _Witness(core.executor, self)
        super().__init__(core.scheduler, core.executor, core.clock)
        self._core = core
        self._recording = recording
        self._now = 0.0
        self._in_flight: deque[int] = deque()
        core.clock = self._read_clock
        core.executor = self._witness

    @property
    def executor(self) -> Executor:
        """What does the recorded core's work; another one takes its place, not the recorder's."""
        return self._witness.executor

    @executor.setter
    def executor(self, executor: Executor) -> None:
        self._witness.executor = executor

    @property
    def has_work(self) -> bool:
        return self._core.has_work

    def add_request(self, request: Request) -> bool:
        self._read_clock()  # a request that is ignored leaves the clock alone
        is_taken = self._core.add_request(request)
        self._recording.request(self._now, request, is_taken)
        self._flush_at_rest()
        return is_taken

    def abort_requests(self, request_ids: Iterable[str]) -> list[Request]:
        ids = list(request_ids)
        self._recording.abort(self._read_clock(), ids)
        aborted = self._core.abort_requests(ids)
        self._flush_at_rest()
        return aborted

    def step(self) -> Step:
        step = self._core.step()
        try:
            pending = next(step)
        except StopIteration as filled:
            outputs: EngineCoreOutputs = filled.value
            return outputs
        model_output = yield pending
        answer = answer_values(self._in_flight.popleft(), model_output)
        try:
            step.send(model_output)
        except StopIteration as done:
            outputs = done.value
            self._recording.update(self._now, answer, outputs.finished)
            self._flush_at_rest()
            return outputs
        raise AssertionError("a step waits once")

    def note_step(self, scheduler_output: SchedulerOutput) -> None:
        """Write down a step that has just been scheduled."""
        self._in_flight.append(scheduler_output.step)
        self._recording.schedule(self._now, scheduler_output)

    def close(self) -> bytes:
        """End the recording; the whole of it, where it is in memory."""
        return self._recording.close(self._read_clock(), self.has_work)

    def _flush_at_rest(self) -> None:
        """What comes next may be long in coming."""
        if not self.has_work:
            self._recording.flush()

    def _read_clock(self) -> float:
        self._now = self.clock()
        return self._now
