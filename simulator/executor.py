"""The simulated device: a step takes as long as the cost model says, and answers at its end.

It keeps the log of steps. It knows no request; what a step holds it reads from the decisions.
"""

from typing import Any

import simpy

from simulator.cost_models.base import CostModel
from simulator.token_source import TokenSource
from workbench.metrics import StepLog
from workbench.outputs import ModelRunnerOutput, SchedulerOutput


class SimulatedExecutor:
    """An Executor on simulated time.

    A device works on one step at a time, in the order in which they were started. With a pipeline of
    n stages a step occupies each stage for an n-th of its time, so the next one can start after that.

    Args:
        env: Simulated time.
        cost_model: Seconds a step.
        token_source: The model's answers.
        step_log: Where steps are logged.
        replica: Number of the replica in the log.
        num_stages: Stages of the pipeline.
    """

    def __init__(
        self,
        env: simpy.Environment,
        cost_model: CostModel,
        token_source: TokenSource,
        step_log: StepLog,
        replica: int,
        num_stages: int = 1,
    ) -> None:
        self._env = env
        self._step_time = cost_model.step_time
        self._sample = token_source.sample
        self._log = step_log.append
        self._replica = replica
        self._num_stages = num_stages
        self._stage_free_at = 0.0
        self._answer_at = 0.0
        self._output: ModelRunnerOutput | None = None

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        env, output = self._env, scheduler_output
        num_tokens = output.total_num_scheduled_tokens
        start = max(env.now, self._stage_free_at)
        self._answer_at = start
        if num_tokens:
            duration = self._step_time(output.shape)
            self._answer_at = start + duration
            self._stage_free_at = start + duration / self._num_stages
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
        self._output = self._sample(output)

    def sample_tokens(self, grammar_output: Any) -> simpy.Event:
        return self._env.timeout(self._answer_at - self._env.now, self._output)
