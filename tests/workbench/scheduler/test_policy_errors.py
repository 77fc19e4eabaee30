"""Nonsense that a policy returns is told in one line: the policy, what it returned, the limit."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import SchedulerError
from workbench.kv_cache.block_pool import BlockPool
from workbench.kv_cache.eviction import FIFOEviction
from workbench.outputs import ModelRunnerOutput
from workbench.request import Request, RequestStatus
from workbench.router import Router
from workbench.scheduler.batch_policy import BatchBuilder, BatchPolicy
from workbench.scheduler.preemption import LastAdmitted, VictimPolicy
from workbench.scheduler.request_queue import FCFSQueue
from workbench.scheduler.scheduler import Scheduler

STRANGER = Request("stranger", 5, 5)


def run(num_blocks: int = 100, num_steps: int = 40, **policies: Any) -> Scheduler:
    scheduler = Scheduler(
        SchedulerConfig(max_model_len=100, max_num_batched_tokens=64),
        CacheConfig(block_size=4),
        num_blocks,
        **policies,
    )
    for name in "abc":
        scheduler.add_request(Request(name, 12, 20), 0.0)
    for _ in range(num_steps):
        scheduler.update_from_output(scheduler.schedule(0.0), ModelRunnerOutput(), 0.0)
        scheduler.check_integrity()
    return scheduler


class Victim(VictimPolicy):
    def __init__(self, choice: Callable[[Sequence[Request]], Any]) -> None:
        self._choice = choice

    def select(self, running: Sequence[Request], for_request: Request) -> Request:
        choice: Request = self._choice(running)
        return choice


@pytest.mark.parametrize(
    ("choice", "told"), [(lambda _: None, "None"), (lambda _: STRANGER, "Request.'stranger'")]
)
def test_a_victim_that_does_not_run(choice: Callable[[Any], Any], told: str) -> None:
    message = f"Victim.select returned {told}.*one of the [23] running requests"
    with pytest.raises(SchedulerError, match=message):
        run(12, victim_policy=Victim(choice))


def test_a_victim_that_runs_elsewhere() -> None:
    elsewhere = Request("elsewhere", 5, 5)
    elsewhere.status = RequestStatus.RUNNING
    message = "Victim.select returned Request.'elsewhere'.* for request '[abc]': it must return one"
    with pytest.raises(SchedulerError, match=message):
        run(12, victim_policy=Victim(lambda _: elsewhere))


def test_a_victim_policy_may_sort_its_list() -> None:
    def last(running: Any) -> Request:
        ordered = sorted(running, key=lambda r: -r.admission_index)
        running.sort(key=lambda r: -r.admission_index)
        choice: Request = ordered[0]
        running.clear()
        return choice

    runs = [run(12, victim_policy=policy) for policy in (Victim(last), LastAdmitted())]
    assert runs[0].num_preemptions == runs[1].num_preemptions > 0


class LongQueue(FCFSQueue):
    def __len__(self) -> int:
        return super().__len__() + 1


class OtherQueue(FCFSQueue):
    def pop(self) -> Request:
        request = next(reversed(list(self)))
        self.remove(request)
        return request


class StrangersQueue(FCFSQueue):
    def peek(self) -> Any:
        return None


class RunningQueue(FCFSQueue):
    """Gives whom it gave before."""

    first: Request | None = None

    def peek(self) -> Request:
        if self.first is None:
            self.first = super().peek()
        return self.first


@pytest.mark.parametrize(
    ("queue", "message"),
    [
        (LongQueue, "LongQueue.peek found nobody .*its length is 1: it must return the next"),
        (OtherQueue, "OtherQueue.pop returned Request.'c'.* peek had returned Request.'a'"),
        (StrangersQueue, "StrangersQueue.peek returned None: .*one of its 3 waiting requests"),
        (RunningQueue, "RunningQueue.peek returned Request.'a', RUNNING.*one of its 2 waiting"),
    ],
)
def test_a_queue_that_contradicts_itself(queue: type[FCFSQueue], message: str) -> None:
    with pytest.raises(SchedulerError, match=message):
        run(queue=queue())


class Budget(BatchPolicy):
    def __init__(self, budget: Any) -> None:
        self._budget = budget

    def form_batch(self, batch: BatchBuilder) -> None:
        batch.token_budget = self._budget
        batch.continue_running()
        batch.admit_waiting()


@pytest.mark.parametrize("budget", [-1, 7.5, "8", None, True])
def test_a_token_budget_that_is_none(budget: Any) -> None:
    message = f"Budget set token_budget={budget!r}: it must be a whole number from 0 to the 64"
    with pytest.raises(SchedulerError, match=message):
        run(batch_policy=Budget(budget))


@pytest.mark.parametrize("budget", [5, np.int64(5), 1000])
def test_a_token_budget_is_only_ever_lowered(budget: Any) -> None:
    scheduler = run(batch_policy=Budget(budget), num_steps=0)
    assert scheduler.schedule(0.0).total_num_scheduled_tokens == min(budget, 36)


class FixedRouter(Router):
    def __init__(self, choice: Any) -> None:
        self._choice = choice

    def choose(self, request: Any, replicas: Any, now: float) -> Any:
        return self._choice


@pytest.mark.parametrize("choice", [-1, 3, 1.0, None, "0"])
def test_a_router_that_names_no_replica(choice: Any) -> None:
    message = f"FixedRouter.choose returned {choice!r} for request 'stranger': .*from 0 to 2"
    stranger: Any = STRANGER
    replicas: list[Any] = [object()] * 3
    with pytest.raises(SchedulerError, match=message):
        FixedRouter(choice).route(stranger, replicas, 0.0)


def test_a_router_may_answer_with_numpys_numbers() -> None:
    stranger: Any = STRANGER
    replicas: list[Any] = [object()] * 2
    chosen = FixedRouter(np.argmax([0, 1])).route(stranger, replicas, 0.0)
    assert chosen == 1
    assert type(chosen) is int


class Stingy(FIFOEviction):
    def pop_many(self, num_blocks: int) -> list[int]:
        return super().pop_many(num_blocks)[1:]


def test_an_eviction_policy_that_gives_too_few_blocks() -> None:
    pool = BlockPool(4, Stingy())
    blocks = pool.get_new_blocks(4)
    pool.cache_full_blocks(blocks, "abcd")
    pool.free_blocks(blocks)
    with pytest.raises(SchedulerError, match=r"Stingy\.pop_many returned 2 blocks of 3"):
        pool.get_new_blocks(3)
