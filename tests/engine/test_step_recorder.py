"""The log of steps around an executor: when a step began, how long it took, what it held."""

from typing import Any

from engine.step_recorder import StepRecorder
from workbench.metrics import StepLog
from workbench.outputs import BlockCopy, ModelRunnerOutput, SchedulerOutput

DONE = ModelRunnerOutput(sampled_token_ids=[])


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Executor:
    """Its results are there when they are asked for."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        self.seen.append(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> "Executor":
        return self

    def result(self) -> ModelRunnerOutput:
        return DONE


def step(num_tokens: int, num_prefill: int = 0) -> SchedulerOutput:
    output = SchedulerOutput(0)
    output.total_num_scheduled_tokens = num_tokens
    output.num_prefill_tokens = num_prefill
    output.num_running, output.num_waiting, output.num_used_blocks = 3, 2, 11
    output.preempted_req_ids = ["a"]
    return output


def recorder() -> tuple[StepRecorder, Clock, StepLog, Executor]:
    clock, log, executor = Clock(), StepLog(), Executor()
    return StepRecorder(executor, clock, log), clock, log, executor  # type: ignore[arg-type]


def test_a_step_is_logged_when_its_result_has_come() -> None:
    under_test, clock, log, executor = recorder()
    clock.now = 1.0
    output = step(10, 7)
    under_test.execute_model(output)
    pending = under_test.sample_tokens(None)
    assert len(log) == 0
    clock.now = 1.5
    assert pending.result() is DONE
    assert executor.seen == [output]
    assert (log.start_s[0], log.duration_s[0]) == (1.0, 0.5)
    columns = {name: column[0] for name, column in log.columns()}
    assert columns["scheduled_tokens"] == 10
    assert columns["prefill_tokens"] == 7
    assert columns["decode_tokens"] == 3
    assert (columns["running"], columns["waiting"], columns["preempted"]) == (3, 2, 1)
    assert columns["kv_blocks_used"] == 11


def test_a_step_started_early_begins_when_the_one_before_it_ends() -> None:
    under_test, clock, log, _ = recorder()
    under_test.execute_model(step(1))
    first = under_test.sample_tokens(None)
    clock.now = 0.2
    under_test.execute_model(step(2))
    second = under_test.sample_tokens(None)
    clock.now = 1.0
    first.result()
    clock.now = 1.75
    second.result()
    assert log.start_s.tolist() == [0.0, 1.0]
    assert log.duration_s.tolist() == [1.0, 0.75]


def test_an_empty_step_is_no_step_but_one_of_copies_is() -> None:
    under_test, _, log, _ = recorder()
    for output in (step(0), step(0)):
        under_test.execute_model(output)
        under_test.sample_tokens(None).result()
        output.swap_out = [BlockCopy("a", (1,), (0,))]
    assert len(log) == 0
    copying = step(0)
    copying.swap_out = [BlockCopy("a", (1,), (0,))]
    under_test.execute_model(copying)
    under_test.sample_tokens(None).result()
    assert log.scheduled_tokens.tolist() == [0]
