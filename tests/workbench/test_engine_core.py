"""One step after the other, or several in flight; requests come, go and are refused."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import EngineCore, PipelinedEngineCore
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput, SchedulerOutput
from workbench.request import Request, RequestStatus
from workbench.scheduler.preemption import VictimPolicy
from workbench.scheduler.request_queue import KeyedQueue
from workbench.scheduler.scheduler import Scheduler


class Executor:
    """Notes what it is given; the pending result is the number of the step."""

    def __init__(self) -> None:
        self.steps: list[SchedulerOutput] = []

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        self.steps.append(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> int:
        assert grammar_output is None
        return self.steps[-1].step


class World:
    """An engine core driven by hand; every wait takes a second."""

    def __init__(self, depth: int = 1, num_blocks: int = 100, **settings: Any) -> None:
        self.now = 0.0
        self.executor = Executor()
        policies = {n: settings.pop(n) for n in ("queue", "victim_policy") if n in settings}
        limits: dict[str, Any] = {"max_model_len": 64, "max_num_batched_tokens": 64}
        self.scheduler = Scheduler(
            SchedulerConfig(**limits | settings),
            CacheConfig(block_size=4),
            num_blocks,
            **policies,
            max_concurrent_batches=depth,
        )
        self.core = EngineCore(self.scheduler, self.executor, self.clock)
        if depth > 1:
            self.core = PipelinedEngineCore(self.scheduler, self.executor, self.clock, depth)
        self.waited_for: list[int] = []

    def clock(self) -> float:
        return self.now

    def step(self) -> EngineCoreOutputs:
        generator = self.core.step()
        try:
            self.waited_for.append(next(generator))
            self.now += 1.0
            generator.send(ModelRunnerOutput())
        except StopIteration as stop:
            return cast("EngineCoreOutputs", stop.value)
        raise AssertionError("a step waits once at most")

    def run(self) -> list[Request]:
        finished: list[Request] = []
        while self.core.has_work:
            finished += self.step().finished
        return finished


def test_a_step_schedules_executes_waits_and_updates() -> None:
    world = World()
    request = Request("a", 5, 2)
    assert not world.core.has_work
    assert world.core.add_request(request)
    assert world.core.has_work
    assert world.step().finished == []
    assert request.num_output_tokens == 1
    assert world.step().finished == [request]
    assert list(request.token_times) == [1.0, 2.0]
    assert request.first_scheduled_time == 0.0
    # One more step tells the device that the request has ended.
    assert world.core.has_work
    assert world.step().finished == []
    assert world.executor.steps[-1].finished_req_ids == ["a"]
    assert world.executor.steps[-1].num_scheduled_tokens == {}
    assert not world.core.has_work
    assert world.waited_for == [0, 1, 2]


def test_results_are_waited_for_oldest_first_once_the_pipeline_is_full() -> None:
    world = World(depth=3, max_num_batched_tokens=63)
    for i in range(3):
        world.core.add_request(Request(str(i), 63, 1))  # a step each
    world.step()
    world.step()
    assert world.waited_for == []
    assert [len(s.num_scheduled_tokens) for s in world.executor.steps] == [1, 1]
    finished = world.step().finished
    assert world.waited_for == [0]
    assert [r.request_id for r in finished] == ["0"]
    assert [r.request_id for r in world.run()] == ["1", "2"]
    assert world.waited_for == sorted(world.waited_for)
    assert len(world.waited_for) == len(world.executor.steps)
    assert not world.core.has_work


def test_asynchronous_scheduling_schedules_a_token_before_the_last_one_is_known() -> None:
    world = World(depth=2, async_scheduling=True)
    request = Request("a", 5, 4)
    world.core.add_request(request)
    world.step()
    assert request.num_output_placeholders == 1
    world.step()
    assert request.num_computed_tokens == 6
    assert request.num_output_tokens == 1
    assert world.run() == [request]
    assert request.num_output_tokens == len(request.token_times) == 4
    assert sum(s.total_num_scheduled_tokens for s in world.executor.steps) == 5 + 3


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_request_that_can_never_run_is_refused(depth: int) -> None:
    world = World(depth, num_blocks=4)
    for request in (Request("long", 64, 1), Request("big", 17, 1), Request("none", 0, 1)):
        assert not world.core.add_request(request)
        assert request.status is RequestStatus.FINISHED_IGNORED
        assert request.finish_reason == "ignored"
    assert not world.core.has_work


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("reserve", [True, False])
def test_a_request_that_outgrows_the_cache_ends_as_an_error_and_others_go_on(
    depth: int, reserve: bool
) -> None:
    world = World(
        depth,
        num_blocks=4,
        scheduler_reserve_full_isl=reserve,
        async_scheduling=depth == 2,
    )
    outgrows, small = Request("a", 14, 20), Request("b", 5, 3)
    for request in (outgrows, small):
        assert world.core.add_request(request)
    finished = world.run()
    assert {r.request_id: r.finish_reason for r in finished} == {"a": "error", "b": "length"}
    assert outgrows.num_output_tokens == len(outgrows.token_times) == 3
    assert world.scheduler.kv_cache_manager.num_used_blocks == 0
    assert not world.core.has_work


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_aborts_at_any_moment(depth: int) -> None:
    for moment in range(12):
        world = World(depth, async_scheduling=depth == 2, max_num_seqs=2)
        requests = [Request(str(i), 9, 5) for i in range(4)]
        for request in requests:
            world.core.add_request(request)
        finished = []
        for _ in range(moment):
            if world.core.has_work:
                finished += world.step().finished
        alive = [r for r in requests if not r.is_finished]
        names = ["1", "2", "nobody"]
        aborted = world.core.abort_requests(names)
        assert aborted == [r for r in alive if r.request_id in names]
        assert all(r.finish_reason == "abort" for r in aborted)
        counts = {r: r.num_output_tokens for r in aborted}
        world.scheduler.check_integrity()
        finished += world.run()
        assert sorted(r.request_id for r in finished + aborted) == list("0123")
        assert {r: r.num_output_tokens for r in aborted} == counts
        assert world.scheduler.kv_cache_manager.num_used_blocks == 0
        told = [name for step in world.executor.steps for name in step.finished_req_ids]
        assert sorted(told) == list("0123")


def test_an_aborted_request_may_come_again_under_its_name() -> None:
    world = World(depth=2, async_scheduling=True)
    first, second = Request("a", 9, 5), Request("a", 9, 5)
    world.core.add_request(first)
    world.step()
    world.core.abort_requests(["a"])
    world.core.add_request(second)
    assert world.run() == [second]
    assert second.num_output_tokens == 5
    assert first.num_output_tokens == 0


class SmallFirst(KeyedQueue):
    """The request with fewer tokens goes first, even before one that was thrown out."""

    def key(self, request: Request) -> tuple[Any, ...]:
        return (request.num_tokens,)


class Smallest(VictimPolicy):
    """The request with fewer tokens gives way."""

    def select(self, running: Sequence[Request], for_request: Request) -> Request:
        return min(running, key=lambda request: request.num_tokens)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_one_who_outgrows_the_cache_ends_even_if_the_queue_prefers_another(depth: int) -> None:
    # Else the other one is admitted beside it and thrown out for it, for ever.
    world = World(
        depth,
        num_blocks=10,
        async_scheduling=depth == 2,
        queue=SmallFirst(),
        victim_policy=Smallest(),
        long_prefill_token_threshold=7,
        scheduler_reserve_full_isl=False,
    )
    world.core.add_request(Request("outgrows", 35, 20))
    world.core.add_request(Request("fits", 26, 5))
    finished: list[Request] = []
    for _ in range(300):
        if not world.core.has_work:
            break
        finished += world.step().finished
    assert {r.request_id: r.finish_reason for r in finished} == {
        "outgrows": "error",
        "fits": "length",
    }
    assert not world.core.has_work
