"""What the KV cache manager tells its eviction policy, and who is evicted then."""

from typing import Any

import pytest

from tests.workbench.kv_cache.small_managers import compute, make_manager, make_request
from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import EngineCore
from workbench.kv_cache.block_hash import PrivateBlockHashes
from workbench.kv_cache.eviction import BeladyEviction, EvictionPolicy, LFUEviction, LRUEviction
from workbench.scheduler.scheduler import Scheduler


class Spy(LFUEviction):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, list[Any]]] = []

    def on_hit(self, keys: Any) -> None:
        self.told.append(("hit", list(keys)))
        super().on_hit(keys)

    def on_lookup(self, keys: Any) -> None:
        self.told.append(("lookup", list(keys)))


def test_eviction_policies_are_told_of_hits_and_of_first_look_ups() -> None:
    spy = Spy()
    manager = make_manager(eviction=spy)
    first, second = make_request("a", 12, "xyz"), make_request("b", 13, "xyq")
    compute(manager, first)
    compute(manager, second)
    assert spy.told[:2] == [("lookup", ["x", "y"]), ("hit", [])]
    assert spy.told[2:] == [("lookup", ["x", "y", "q"]), ("hit", ["x", "y"])]
    manager.free(second)
    second.num_preemptions = 1
    second._num_computed_tokens = 0
    compute(manager, second)
    assert spy.told[4:] == [("hit", ["x", "y", "q"])]


@pytest.mark.parametrize("eviction", [LRUEviction, LFUEviction])
def test_the_eviction_policy_given_is_the_one_that_evicts(eviction: type[EvictionPolicy]) -> None:
    manager = make_manager(4, eviction=eviction())
    popular, once = make_request("a", 5, "p"), make_request("b", 5, "o")
    for request in (popular, once):
        compute(manager, request)
        manager.free(request)
        request._num_computed_tokens = 0
    compute(manager, popular)
    manager.free(popular)
    popular._num_computed_tokens = 0
    compute(manager, once)
    manager.free(once)
    once._num_computed_tokens = 0
    # hits: p 1, o 1; p hit again
    compute(manager, popular)
    manager.free(popular)
    third = make_request("c", 12)
    third.block_hashes = PrivateBlockHashes(99)
    compute(manager, third)
    left = [key for key in "po" if manager.num_cached_prefix_tokens([key])]
    assert left == ["p"]


def test_belady_evicts_what_is_needed_last() -> None:
    eviction = BeladyEviction()
    eviction.set_future([(0.0, ["x"]), (1.0, ["y"]), (2.0, ["x"]), (3.0, ["y"])])
    manager = make_manager(3, eviction=eviction)
    for key in "xy":
        request = make_request(key, 5, key)
        compute(manager, request)
        manager.free(request)
    third = make_request("c", 8)
    compute(manager, third)  # takes the empty block and one of the two: y is needed later than x
    assert manager.num_cached_prefix_tokens(["x"]) == 4
    assert manager.num_cached_prefix_tokens(["y"]) == 0


def test_belady_does_not_wait_for_requests_that_have_ended() -> None:
    """Of a request that is dropped before its first admission, the use at its own time goes."""
    eviction = BeladyEviction()
    eviction.set_future([(0.0, ["x"]), (1.0, ["y"]), (2.0, ["x"]), (3.0, ["y"]), (4.0, ["x"])])
    manager = make_manager(3, eviction=eviction)
    for key in "xy":
        request = make_request(key, 5, key)
        compute(manager, request)
        manager.free(request)
    dropped = make_request("d", 5, "x")
    dropped.arrival_time = 2.0
    manager.drop_lookup(dropped)
    compute(manager, make_request("c", 8))  # takes one of two: now x is needed later than y
    assert manager.num_cached_prefix_tokens(["x"]) == 0
    assert manager.num_cached_prefix_tokens(["y"]) == 4


@pytest.mark.parametrize("end", ["ignore", "abort"])
def test_the_eviction_policy_is_told_of_requests_that_end_before_their_admission(end: str) -> None:
    class Told(LRUEviction):
        def __init__(self) -> None:
            super().__init__()
            self.dropped: list[tuple[list[Any], float]] = []

        def on_dropped(self, keys: Any, arrival_time: float) -> None:
            self.dropped.append((list(keys), arrival_time))

    told = Told()
    config = SchedulerConfig(max_model_len=16)
    scheduler = Scheduler(config, CacheConfig(block_size=4), 20, eviction=told)
    request = make_request("a", 40 if end == "ignore" else 10, "xyz")
    request.arrival_time = 7.0
    core = EngineCore(scheduler, UnusedExecutor(), lambda: 7.0)
    assert core.add_request(request) == (end == "abort")
    if end == "abort":
        core.abort_requests(["a"])
    assert [(keys[:2], time) for keys, time in told.dropped] == [(["x", "y"], 7.0)]


class UnusedExecutor:
    def execute_model(self, scheduler_output: Any) -> None:
        raise AssertionError("no step is taken")

    def sample_tokens(self, grammar_output: Any) -> Any:
        raise AssertionError("no step is taken")
