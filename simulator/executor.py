"""The simulated device: a step takes as long as the cost model says, and answers at its end.

It keeps the log of steps. It knows no request; what a step holds it reads from the decisions.
"""

import math
from bisect import bisect_left
from typing import Any, Protocol

from simulator.cost_models.base import CostModel
from simulator.token_source import TokenSource
from workbench.errors import CostModelError
from workbench.executor import Pending
from workbench.metrics import StepLog
from workbench.outputs import BatchRows, ModelRunnerOutput, SchedulerOutput
from workbench.scheduler.scheduler import Scheduler
from workbench.step_profile import StepShape


class Timeline(Protocol):
    """Simulated time, and a way to wait for some of it to pass."""

    @property
    def now(self) -> float:
        """Seconds."""
        ...

    def timeout_at(self, at: float, value: Any = None) -> Pending:
        """What waits until the time `at` (seconds) and then gives the value."""
        ...


class LongestDecode:
    """Follows the longest decode row from step to step; looks at all rows only when they change.

    Attributes:
        num_keys: KV tokens that it read in the last step; 0 without decode rows.
    """

    def __init__(self) -> None:
        self.num_keys = 0
        self._rows: BatchRows | None = None

    def of_step(self, output: SchedulerOutput) -> int:
        """KV tokens that the longest decode row of this step reads, the new one included."""
        rows = output._rows
        if rows is self._rows:
            self.num_keys += 1
            return self.num_keys
        self.num_keys = rows.longest_decode()
        # rows that are all decodes are shared by the steps that follow; others are of this step
        self._rows = None if rows.num_tokens_of else rows
        return self.num_keys


class SimulatedExecutor:
    """An Executor on simulated time.

    A device works on one step at a time, in the order in which they were started. With a pipeline
    of n stages a step occupies each stage for an n-th of its time; then the next one can start.

    Args:
        env: Simulated time.
        cost_model: Seconds a step.
        token_source: The model's answers.
        step_log: Where steps are logged.
        replica: Number of the replica in the log.
        num_stages: Stages of the pipeline.
        overlaps_host: Whether the host prepares a step while the device runs the one before
            (asynchronous scheduling).

    Attributes:
        num_extrapolated: Steps run so far whose price lies outside of what was measured.
    """

    def __init__(
        self,
        env: Timeline,
        cost_model: CostModel,
        token_source: TokenSource,
        step_log: StepLog,
        replica: int,
        num_stages: int = 1,
        overlaps_host: bool = False,
    ) -> None:
        self._env = env
        self.num_extrapolated = 0
        self._cost_model = cost_model
        self._is_bounded = cost_model.is_bounded
        self._longest = LongestDecode() if cost_model.wants_longest_decode else None
        self._wants_time = cost_model.wants_time
        self._step_time = cost_model.step_time
        self._step_log = step_log
        self._sample = token_source.sample
        self._log = step_log.append
        self._replica = replica
        self._num_stages = num_stages
        self._overlaps_host = overlaps_host
        self._stage_free_at = 0.0
        self._answer_at = 0.0
        self._output: ModelRunnerOutput | None = None

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        env, output = self._env, scheduler_output
        num_tokens = output.total_num_scheduled_tokens
        start = max(env.now, self._stage_free_at)
        self._answer_at = start
        # a step of nothing but copies to the host takes its time as well
        if num_tokens or output.shape.num_swap_blocks:
            if self._longest is not None:
                output.shape.longest_decode = self._longest.of_step(output)
            if self._wants_time:
                self._cost_model.tell_time(start)
            duration = self._step_time(output.shape)
            if not 0.0 <= duration < math.inf:
                raise self._refusal(num_tokens, duration)
            if self._is_bounded and self._cost_model.is_extrapolated(output.shape):
                self.num_extrapolated += 1
            if self._overlaps_host:
                host = self._cost_model.host_time(output.shape)
                duration -= host
                start = max(env.now + host, self._stage_free_at)
            self._answer_at = start + duration
            self._stage_free_at = start + duration / self._num_stages
            self._log_step(output, start, duration)
        else:
            self._step_log.note_preemptions(self._replica, len(output.preempted_req_ids))
        self._output = self._sample(output)

    def rest(self) -> None:
        """Be told that there is no work until a request comes."""

    def sample_tokens(self, grammar_output: Any) -> Pending:
        return self._env.timeout_at(self._answer_at, self._output)

    def _log_step(self, output: SchedulerOutput, start: float, duration: float) -> None:
        num_tokens = output.total_num_scheduled_tokens
        self._log(
            self._replica,
            start,
            duration,
            num_tokens,
            output.num_prefill_tokens,
            num_tokens - output.num_prefill_tokens,
            output.num_running,
            output.num_waiting,
            len(output.preempted_req_ids),
            output.num_used_blocks,
        )

    def decode_ahead(self, scheduler: Scheduler, horizon: float) -> float:
        """Run steps that only decode, as many as end by `horizon`; the time at which they end."""
        cost_model, now = self._cost_model, self._env.now
        if not cost_model.is_repeatable:
            return now
        step_time = cost_model.step_time
        longest = self._longest
        contexts: list[int] = []

        def noting(shape: StepShape) -> float:
            contexts.append(shape.decode_context)
            if longest is not None:
                shape.longest_decode = longest.num_keys + len(contexts)
            return step_time(shape)

        asks = noting if self._is_bounded or longest is not None else step_time
        ahead = scheduler.decode_ahead(now, horizon, asks)
        if ahead is None or not ahead.starts:
            return now
        if longest is not None:
            longest.num_keys += len(ahead.starts)
        size = len(scheduler.running)
        shared = scheduler.kv_cache_manager.num_shared_tokens
        # the last step that was priced may not have been taken
        self._count_extrapolated(size, contexts[: len(ahead.starts)], shared)
        self._step_log.extend_decodes(
            self._replica,
            ahead.starts,
            ahead.durations,
            ahead.used_blocks,
            decode_tokens=size,
            running=size,
            waiting=len(scheduler.waiting),
        )
        return ahead.starts[-1] + ahead.durations[-1]

    def _count_extrapolated(self, rows: int, contexts: list[int], shared: int) -> None:
        """Count steps of `rows` decodes with these ascending contexts."""

        def is_outside(context: int) -> bool:
            shape = StepShape(rows, context, [], rows, shared_context=shared)
            return self._cost_model.is_extrapolated(shape)

        if contexts and is_outside(contexts[-1]):
            first = bisect_left(contexts, True, key=is_outside)
            self.num_extrapolated += len(contexts) - first

    def _refusal(self, num_tokens: int, seconds: float) -> CostModelError:
        return CostModelError(
            f"{type(self._cost_model).__name__} prices a step of {num_tokens} tokens at"
            f" {seconds} s: it must be a finite number of at least 0; check its settings"
        )
