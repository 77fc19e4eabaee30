"""A recorded run of the engine, with every row and every block: its recording is played again.

Knows recordings and the collector of the live view; nothing of the page.
"""

from pathlib import Path

from engine.server.view.latencies import Latencies
from engine.step_detail import EVERY_STEP, StepWatcher
from experiments.parity_changes import policies_of
from experiments.viewing.recorded_run import RecordedRun, StepNumbers, Window
from simulator.replay import Replay
from workbench.outputs import EngineCoreOutputs, SchedulerOutput
from workbench.recording import Recording, RequestEvent, ScheduleEvent, read_recording
from workbench.request import Request
from workbench.scheduler.scheduler import Scheduler


def replayed_run(path: Path, window: Window) -> RecordedRun:
    """The steps of a recording.

    Args:
        path: The recording.
        window: Which steps are wanted.

    Raises:
        ConfigError: The recording cannot be read.
    """
    recording = read_recording(path)
    settings = recording.settings
    run = RecordedRun(num_kv_blocks=settings.num_blocks, block_size=settings.cache.block_size)
    witness = _Witness(recording, run, window)
    result = Replay(recording, policies_of(settings), on_step=witness.on_step).run()
    run.num_steps = result.num_recorded
    if not recording.is_whole:
        run.notes.append("The recording has no end: the process that wrote it was killed.")
    if result.difference is not None:
        run.num_steps = result.difference.step
        run.notes.append(
            f"Only steps before {result.difference.step} are shown: from there on this version "
            f"decides something else than what was recorded ({result.difference.field})."
        )
    return run


class _Witness:
    """Collects the steps of a replay."""

    def __init__(self, recording: Recording, run: RecordedRun, window: Window) -> None:
        events = recording.events
        self._run = run
        self._window = window
        self._starts = {e.step: e.now for e in events if isinstance(e, ScheduleEvent)}
        self._watcher = StepWatcher(EVERY_STEP)
        self._latencies = Latencies(origin=0.0)
        self._last_end = 0.0
        for event in events:
            if isinstance(event, RequestEvent):
                self._latencies.arrive(event.values["request_id"], event.values["arrival_time"])

    def on_step(
        self,
        scheduler: Scheduler,
        scheduler_output: SchedulerOutput,
        outputs: EngineCoreOutputs,
        now: float,
    ) -> None:
        """Take in a step that has just ended."""
        for request, token_ids in outputs.new_tokens():
            is_first = len(request.token_times) == len(token_ids)
            self._latencies.tokens(request.request_id, len(token_ids), now, is_first)
        for request in outputs.finished:
            self._end(request, now)
        # A device begins with a step that was scheduled early when the one before it has ended.
        start = max(self._starts.get(scheduler_output.step, now), self._last_end)
        self._last_end = now
        latencies = self._latencies.take()
        if scheduler_output.step not in self._window:
            return
        if not self._watcher.is_watched:
            self._watcher.watch(True)
        detail = self._watcher.detail(scheduler, scheduler_output)
        self._run.add(_numbers(scheduler, scheduler_output, start, now), detail, latencies)

    def _end(self, request: Request, now: float) -> None:
        times = request.token_times
        first = times[0] if times else None
        num_tokens = request.num_output_tokens
        self._latencies.end(request.request_id, num_tokens, first, request.arrival_time, now)


def _numbers(scheduler: Scheduler, step: SchedulerOutput, start: float, end: float) -> StepNumbers:
    cache = scheduler.kv_cache_manager
    num_tokens, num_prefill = step.total_num_scheduled_tokens, step.num_prefill_tokens
    return StepNumbers(
        step=step.step,
        start=start,
        duration=end - start,
        running=len(scheduler.running),
        waiting=len(scheduler.waiting),
        used=cache.num_used_blocks,
        tokens=num_tokens,
        prefill=num_prefill,
        decode=num_tokens - num_prefill,
        preempted=len(step.preempted_req_ids),
        queries=cache.num_queried_tokens,
        hits=cache.num_hit_tokens,
    )
