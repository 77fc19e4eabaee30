"""Plays a recorded run through a simulated server, and finds the first decision that differs.

The server is the ordinary one: replica, engine core, scheduler, KV cache and executor on simulated
time, built from the recorded settings. From the recording come the requests and aborts with their
times, the moments at which steps begin (a real host takes time between two steps), how long each
step takes, and the tokens. If every decision and every reading of the clock is the recorded one,
then the two worlds decide alike: nothing that decides depends on which of them it is in.

That step times are right, it does not show: they are given.
"""

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

import simpy

from simulator.cluster import Policies
from simulator.environment import SimulationEnvironment
from simulator.executor import SimulatedExecutor
from simulator.recorded_world import (
    NOTHING,
    Difference,
    DivergenceError,
    PacedCore,
    RecordedAnswers,
    RecordedExecutor,
    RecordedTimes,
    divergence,
)
from simulator.replica import Replica
from simulator.watched_scheduler import OnStep, WatchedScheduler
from workbench.engine_core import EngineCore, PipelinedEngineCore
from workbench.executor import Clock
from workbench.metrics import StepLog
from workbench.recording import (
    AbortEvent,
    EndEvent,
    RecordedSettings,
    Recording,
    RequestEvent,
    ScheduleEvent,
    UpdateEvent,
)
from workbench.request import Request
from workbench.scheduler.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """How a replay went.

    Attributes:
        num_recorded: Steps of the recording.
        num_compared, num_equal: Steps that were scheduled again, and those of them that are equal;
            after the first difference no more are, as the recorded tokens answer another question.
        difference: The first one.
        counters: What happened in the simulated server: requests, aborts, preemptions,
            prefix_hit_tokens, up to the first difference.
        steps: The simulated log of steps.
    """

    num_recorded: int
    num_compared: int
    num_equal: int
    difference: Difference | None
    counters: dict[str, int]
    steps: StepLog


class Replay:
    """One replay, to be run once.

    Args:
        recording: What to repeat.
        policies: What decides; must be those recorded if the decisions are to be.
        settings: Of the scheduler, where they are not to be the recorded ones.
        on_step: Called after every step (see WatchedScheduler); must change nothing.
    """

    def __init__(
        self,
        recording: Recording,
        policies: Policies | None = None,
        settings: RecordedSettings | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        self._recording = recording
        self._settings = settings or recording.settings
        env = self._env = SimulationEnvironment()
        self._steps = StepLog()
        self._num_requests = 0
        self._num_aborts = 0
        self._source = RecordedAnswers(recording, lambda: env.now)
        executor = RecordedExecutor(
            recording,
            env,
            RecordedTimes(recording),
            self._source,
            self._steps,
            replica=0,
            overlaps_host=self._settings.scheduler.async_scheduling,
        )
        scheduler = _make_scheduler(self._settings, policies or Policies(), on_step)
        core = _make_core(self._settings, scheduler, executor, lambda: env.now)
        self._core = PacedCore(env, core)
        self._replica = Replica(env, self._core, executor, _let_go)

    def run(self) -> ReplayResult:
        """Repeat the run up to its end or the first difference."""
        play = self._env.process(self._play())
        difference = None
        try:
            self._env.run()
            if play.is_alive:
                raise divergence(self._source.num_asked, "update", "results", NOTHING)
        except DivergenceError as found:
            difference = found.args[0]
        source = self._source
        return ReplayResult(
            source.num_recorded,
            source.num_asked,
            source.num_equal,
            difference,
            self._counters(),
            self._steps,
        )

    def _counters(self) -> dict[str, int]:
        scheduler = self._core.scheduler
        return {
            "requests": self._num_requests,
            "aborts": self._num_aborts,
            "preemptions": scheduler.num_preemptions,
            "prefix_hit_tokens": scheduler.kv_cache_manager.num_hit_tokens,
        }

    def _play(self) -> Generator[simpy.Event, None, None]:
        env, core = self._env, self._core
        for event in self._recording.events:
            if isinstance(event, UpdateEvent):
                if not core.has_updated.triggered:
                    core.take_turn()  # of a step that only takes in what is in flight
                yield core.has_updated
                self._check_update(event)
                continue
            yield env.timeout_at(event.now)
            if core.has_updated.triggered:
                raise divergence(self._source.num_asked - 1, "update", NOTHING, "results")
            if isinstance(event, ScheduleEvent):
                if (turn := core.take_turn()) is None:
                    raise divergence(event.step, "step", "a step", NOTHING)
                yield turn
            elif isinstance(event, RequestEvent):
                self._arrive(event)
            elif isinstance(event, AbortEvent):
                self._num_aborts += len(core.abort_requests(event.request_ids))
            else:
                self._check_end(event)

    def _arrive(self, event: RequestEvent) -> None:
        self._num_requests += 1
        request = event.request(self._settings.cache)
        self._replica.add_request(request)
        if request.is_finished is event.is_taken:
            name = f"is_taken of request {request.request_id!r}"
            raise divergence(self._source.num_asked, name, event.is_taken, not event.is_taken)

    def _check_update(self, event: UpdateEvent) -> None:
        self._core.await_update()
        if (expected := event.values["finished"]) != (got := self._core.ends):
            raise divergence(event.step, "finished", expected, got)
        if self._core.updated_at != event.now:
            raise divergence(event.step, "now of update", event.now, self._core.updated_at)

    def _check_end(self, event: EndEvent) -> None:
        if event.has_work != self._core.has_work:
            wanted = "work left" if event.has_work else NOTHING
            got = "work left" if self._core.has_work else NOTHING
            raise divergence(self._source.num_asked, "end", wanted, got)


def _let_go(request: Request) -> None:
    """Nobody waits for the request that has ended."""


def _make_scheduler(
    settings: RecordedSettings, policies: Policies, on_step: OnStep | None
) -> Scheduler:
    make = Scheduler if on_step is None else partial(WatchedScheduler, on_step)
    return make(
        settings.scheduler,
        settings.cache,
        settings.num_blocks,
        num_host_blocks=settings.num_host_blocks,
        **policies.make(),
        max_concurrent_batches=settings.max_concurrent_batches,
        forget_uncomputed_blocks=settings.forget_uncomputed_blocks,
    )


def _make_core(
    settings: RecordedSettings, scheduler: Scheduler, executor: SimulatedExecutor, clock: Clock
) -> EngineCore:
    depth = settings.max_concurrent_batches
    if depth == 1:
        return EngineCore(scheduler, executor, clock)
    return PipelinedEngineCore(scheduler, executor, clock, depth)
