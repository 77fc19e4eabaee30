"""The simulated device: when answers come, how stages overlap, what the log says."""

from typing import Any

import pytest

from simulator.cost_models.linear import ConstantCostModel, LinearCostModel
from simulator.environment import SimulationEnvironment
from simulator.executor import SimulatedExecutor
from simulator.token_source import LengthTokenSource
from tests.simulator.small_runs import simulate
from workbench.errors import CostModelError
from workbench.metrics import StepLog
from workbench.outputs import SchedulerOutput
from workbench.step_profile import StepShape
from workbench.workload.base import WorkloadRequest


def make_step(num_tokens: int, **fields: Any) -> SchedulerOutput:
    output = SchedulerOutput(0)
    output.total_num_scheduled_tokens = num_tokens
    output.shape = StepShape(prefills=[(num_tokens, 0)] if num_tokens else [])
    for name, value in fields.items():
        setattr(output, name, value)
    return output


class World:
    def __init__(self, cost_model: Any = None, **settings: Any) -> None:
        self.env = SimulationEnvironment()
        self.log = StepLog()
        self.executor = SimulatedExecutor(
            self.env,
            cost_model or ConstantCostModel(2.0),
            LengthTokenSource(),
            self.log,
            3,
            **settings,
        )
        self.answered_at: list[float] = []

    def start(self, output: SchedulerOutput) -> None:
        self.executor.execute_model(output)
        pending = self.executor.sample_tokens(None)
        pending.callbacks.append(lambda _: self.answered_at.append(self.env.now))


def test_an_answer_comes_when_the_step_is_over() -> None:
    world = World()
    world.start(make_step(5))
    world.env.run()
    assert world.answered_at == [2.0]


def test_the_answer_is_what_the_token_source_says() -> None:
    world = World()
    world.executor.execute_model(make_step(5))
    answer = world.env.run(world.executor.sample_tokens(None))
    assert answer is LengthTokenSource._output


def test_an_empty_step_takes_no_time_and_no_row() -> None:
    world = World()
    world.start(make_step(0))
    world.env.run()
    assert world.answered_at == [0.0]
    assert len(world.log) == 0


def test_a_step_of_nothing_but_copies_takes_their_time() -> None:
    world = World(LinearCostModel(per_swap_block_s=0.5))
    world.start(make_step(0, shape=StepShape(num_swap_blocks=4), preempted_req_ids=["a"]))
    world.env.run()
    assert world.answered_at == [2.0]
    assert (list(world.log.duration_s), list(world.log.preempted)) == ([2.0], [1])


def test_the_log_holds_the_step() -> None:
    world = World(LinearCostModel(per_token_s=0.5))
    world.start(
        make_step(
            10,
            num_prefill_tokens=7,
            num_running=4,
            num_waiting=2,
            num_used_blocks=31,
            preempted_req_ids=["a", "b"],
        )
    )
    world.env.run()
    world.start(make_step(2, num_prefill_tokens=2))
    rows = [column.tolist() for _, column in world.log.columns()]
    assert list(zip(*rows, strict=True)) == [
        (3, 0.0, 5.0, 10, 7, 3, 4, 2, 2, 31),
        (3, 5.0, 1.0, 2, 2, 0, 0, 0, 0, 0),
    ]


@pytest.mark.parametrize(
    ("num_stages", "answers", "starts"),
    [(1, [2.0, 4.0, 6.0], [0.0, 2.0, 4.0]), (2, [2.0, 3.0, 4.0], [0.0, 1.0, 2.0])],
)
def test_steps_in_flight_follow_each_other_by_a_stage(
    num_stages: int, answers: list[float], starts: list[float]
) -> None:
    world = World(num_stages=num_stages)
    for _ in range(3):
        world.start(make_step(5))
    world.env.run()
    assert world.answered_at == answers
    assert list(world.log.start_s) == starts
    assert list(world.log.duration_s) == [2.0] * 3


def test_an_empty_step_answers_after_the_one_before_it_has_left_the_first_stage() -> None:
    world = World()
    world.start(make_step(5))
    world.start(make_step(0))
    world.env.run()
    assert world.answered_at == [2.0, 2.0]


class Hosted(LinearCostModel):
    """Two seconds of a step are the host's."""

    def host_time(self, shape: StepShape) -> float:
        return 2.0


def test_the_host_hides_behind_the_device_where_it_may() -> None:
    for overlaps, answers in ((False, [5.0, 10.0, 15.0]), (True, [5.0, 8.0, 11.0])):
        world = World(Hosted(base_s=5.0), overlaps_host=overlaps)
        world.start(make_step(1))
        world.start(make_step(1))
        world.env.run(until=5.0 + 1e-9)
        world.start(make_step(1))
        world.env.run()
        assert world.answered_at == answers


def test_an_exact_time_is_met_to_the_bit() -> None:
    env = SimulationEnvironment(initial_time=0.1)
    met = []

    def wait() -> Any:
        value = yield env.timeout_at(0.1 + 0.2, "x")
        met.append((env.now, value))
        yield env.timeout_at(0.0)  # in the past: at once
        met.append((env.now, None))

    env.process(wait())
    env.run()
    assert met == [(0.1 + 0.2, "x"), (0.1 + 0.2, None)]


class Short(LinearCostModel):
    """Only decodes with few keys were measured."""

    is_bounded = True

    def is_extrapolated(self, shape: StepShape) -> bool:
        return shape.decode_context > 100


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("arrival", [40.0, 95.5, 103.0, 130.7])
def test_a_step_that_is_priced_and_not_taken_is_not_counted(arrival: float, gap: float) -> None:
    requests = [
        WorkloadRequest("a", 0.0, 10, 200),
        WorkloadRequest("b", arrival, 30, 5),
        WorkloadRequest("c", arrival + gap, 20, 50),
    ]
    counts = []
    for ahead in (True, False):
        result = simulate(requests, Short(base_s=1.0), decode_ahead=ahead)
        counts.append(result.counters["extrapolated_steps"])
    assert counts[0] == counts[1] > 90


@pytest.mark.parametrize("seconds", [float("nan"), -1.0])
def test_a_price_that_is_none_ends_a_run_ahead_too(seconds: float) -> None:
    class Late(LinearCostModel):
        def step_time(self, shape: StepShape) -> float:
            return seconds if shape.decode_context > 50 else 1.0

    with pytest.raises(CostModelError, match=f"Late prices a step of 1 tokens at {seconds} s"):
        simulate([WorkloadRequest("a", 0.0, 10, 200)], Late())
