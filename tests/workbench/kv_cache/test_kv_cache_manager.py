"""Prefix hits, allocation, windows, the watermark, and what fits."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import EngineCore
from workbench.kv_cache.block_hash import KnownBlockHashes, PrivateBlockHashes
from workbench.kv_cache.eviction import BeladyEviction, EvictionPolicy, LFUEviction, LRUEviction
from workbench.kv_cache.kv_cache_manager import KVCacheManager
from workbench.request import Request
from workbench.scheduler.scheduler import Scheduler


def make_manager(
    num_blocks: int = 20,
    *,
    watermark: float = 0.0,
    eviction: EvictionPolicy | None = None,
    max_in_flight_tokens: int = 16,
    **cache: Any,
) -> KVCacheManager:
    return KVCacheManager(
        CacheConfig(**{"block_size": 4} | cache),
        num_blocks,
        max_model_len=1000,
        max_in_flight_tokens=max_in_flight_tokens,
        eviction=LRUEviction() if eviction is None else eviction,
        watermark=watermark,
    )


def make_request(name: str, num_tokens: int, keys: str = "") -> Request:
    ordinal = sum(map(ord, name))
    hashes = KnownBlockHashes(ordinal, list(keys), min(len(keys), num_tokens // 4))
    return Request(name, num_tokens, 50, block_hashes=hashes)


def compute(manager: KVCacheManager, request: Request, num_tokens: int | None = None) -> None:
    """Admit a request and compute its prompt in one step."""
    hit = manager.get_computed_blocks(request)
    num_tokens = request.num_tokens if num_tokens is None else num_tokens
    blocks = manager.admit_slots(request, num_tokens - hit.num_tokens, hit)
    assert blocks is not None
    manager.record_lookup(request, hit)
    request._num_computed_tokens = num_tokens


@pytest.mark.parametrize(("num_tokens", "hit"), [(11, 8), (12, 8), (13, 12), (4, 0), (5, 4)])
def test_a_hit_leaves_a_token_to_compute(num_tokens: int, hit: int) -> None:
    manager = make_manager()
    first = make_request("a", 16, "wxyz")
    compute(manager, first)
    second = make_request("b", num_tokens, "wxyz")
    found = manager.get_computed_blocks(second)
    assert found.num_tokens == hit
    assert found.blocks == (first.block_ids[0][: hit // 4],)


def test_a_hit_shares_blocks_and_counts_their_users() -> None:
    manager = make_manager()
    first, second = make_request("a", 10, "xy"), make_request("b", 14, "xyz")
    compute(manager, first)
    compute(manager, second)
    assert second.block_ids[0][:2] == first.block_ids[0][:2]
    assert manager.num_used_blocks == 5
    assert manager.usage == 0.25
    manager.check_integrity([first, second])
    manager.free(first)
    assert manager.num_used_blocks == 4
    manager.free(second)
    manager.check_integrity([])
    assert manager.num_used_blocks == 0
    assert manager.num_cached_prefix_tokens(list("xyzq")) == 12
    assert manager.num_cached_prefix_tokens(list("qxyz")) == 0
    assert (manager.num_queried_tokens, manager.num_hit_tokens) == (24, 8)
    assert manager.reset_prefix_cache()
    assert manager.num_cached_prefix_tokens(list("xyz")) == 0


@pytest.mark.parametrize("how", ["off", "no_keys"])
def test_without_caching_nothing_is_found_or_counted(how: str) -> None:
    manager = make_manager(enable_prefix_caching=how != "off")
    for name in "ab":
        request = make_request(name, 12, "xyz")
        if how == "no_keys":
            request.block_hashes = None
        compute(manager, request)
    assert manager.num_used_blocks == 6
    assert manager.num_queried_tokens == manager.num_hit_tokens == 0
    assert manager.num_cached_prefix_tokens(list("xyz")) == 0


def test_a_refusal_changes_nothing() -> None:
    manager = make_manager(5)
    first = make_request("a", 8, "xy")
    compute(manager, first)
    manager.free(first)
    second = make_request("b", 30, "xy")
    line = manager.pool.free_line()
    hit = manager.get_computed_blocks(second)
    assert hit.num_tokens == 8
    assert manager.admit_slots(second, 22, hit) is None
    assert not second.block_ids
    assert manager.pool.free_line() == line
    manager.check_integrity([second])


def test_blocks_hit_in_the_line_of_free_ones_count_as_needed() -> None:
    manager = make_manager(5)
    first = make_request("a", 9, "xy")
    compute(manager, first)
    manager.free(first)
    # 17 tokens are 5 blocks, two of which are found, but free: 5 are taken from the line.
    second = make_request("b", 17, "xy")
    hit = manager.get_computed_blocks(second)
    assert manager.admit_slots(second, 9, hit) is not None
    assert manager.num_free_blocks == 0


def test_decoding_takes_a_block_every_block_size_tokens() -> None:
    manager = make_manager()
    request = make_request("a", 6)
    compute(manager, request)
    got = []
    for _ in range(10):
        new, _ = manager.append_slot(request, request.num_computed_tokens)
        got.append(len(new[0]))
        request._num_computed_tokens += 1
        request._num_output_tokens += 1
    assert got == [0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    manager.check_integrity([request])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    num_prompt=st.integers(1, 40),
    num_output=st.integers(1, 40),
    window=st.sampled_from([None, 3, 8]),
    caching=st.booleans(),
)
def test_the_short_way_for_decodes_is_the_long_way(
    num_prompt: int, num_output: int, window: int | None, caching: bool
) -> None:
    managers = [
        make_manager(40, sliding_window=window, enable_prefix_caching=caching) for _ in range(2)
    ]
    requests = [make_request("a", num_prompt, "x" if caching else "") for _ in managers]
    for manager, request in zip(managers, requests, strict=True):
        compute(manager, request)
    quiet = 0
    for _ in range(num_output):
        for request in requests:
            request._num_output_tokens += 1
        short, told = managers[0].append_slot(requests[0], requests[0].num_computed_tokens)
        long = managers[1].allocate_slots(requests[1], 1)
        assert told == managers[0].quiet_tokens(requests[0])
        assert [b for table in short for b in table] == [b for table in long or [] for b in table]
        assert requests[0].block_ids == requests[1].block_ids
        assert requests[0].num_cached_blocks == requests[1].num_cached_blocks
        assert managers[0].pool.free_line() == managers[1].pool.free_line()
        if quiet > 0:
            assert not any(short)
        for request in requests:
            request._num_computed_tokens += 1
        quiet = managers[0].quiet_tokens(requests[0])


def test_a_sliding_window_gives_back_what_it_has_left() -> None:
    manager = make_manager(sliding_window=6)
    request = make_request("a", 20)
    compute(manager, request)
    assert manager.num_used_blocks == 5
    assert manager.allocate_slots(request, 1) is not None
    # Token 20 attends to tokens 15 to 20: blocks 0 to 2 (tokens 0 to 11) are left behind.
    assert [block == 0 for block in request.block_ids[0]] == [True] * 3 + [False] * 3
    assert manager.num_used_blocks == 3
    manager.check_integrity([request])
    manager.free(request)
    assert manager.num_used_blocks == 0


def test_tokens_in_flight_keep_their_window() -> None:
    manager = make_manager(sliding_window=6)
    request = make_request("a", 20)
    compute(manager, request)
    request._in_flight_tokens = 20  # nothing has come back yet: all of it may still be read
    assert manager.allocate_slots(request, 1) is not None
    assert 0 not in request.block_ids[0]


def test_a_hybrid_cache_frees_the_windows_group_only() -> None:
    manager = make_manager(hybrid_window=6)
    request = make_request("a", 20, "vwxyz")
    compute(manager, request)
    assert manager.num_used_blocks == 10
    manager.allocate_slots(request, 1)
    full, window = request.block_ids
    assert 0 not in full
    assert window[:3] == [0, 0, 0]
    assert not set(full) & set(window)
    manager.check_integrity([request])


def test_a_window_needs_only_its_own_blocks_for_a_hit() -> None:
    manager = make_manager(sliding_window=6)
    first = make_request("a", 21, "vwxyz")
    compute(manager, first)
    manager.allocate_slots(first, 1)
    second = make_request("b", 21, "vwxyz")
    hit = manager.get_computed_blocks(second)
    assert hit.num_tokens == 20
    # What the window has left behind is a place without a block, whether it is cached or not.
    compute(manager, second)
    assert second.block_ids[0][:3] == [0, 0, 0]
    assert second.block_ids[0][4] == first.block_ids[0][4]


def test_the_watermark_keeps_blocks_free_for_those_that_run() -> None:
    manager = make_manager(19, watermark=0.2)
    assert manager.watermark_blocks == 4
    request = make_request("a", 64)
    hit = manager.get_computed_blocks(request)
    arguments: dict[str, Any] = {"hit": hit, "keep_watermark": True}
    assert manager.admit_slots(request, 61, **arguments) is None
    assert manager.admit_slots(request, 60, **arguments) is not None
    manager.free(request)
    arguments["keep_watermark"] = False
    assert manager.admit_slots(request, 64, **arguments) is not None


def test_a_whole_sequence_may_be_asked_to_fit() -> None:
    manager = make_manager(10)
    request = make_request("a", 41)
    hit = manager.get_computed_blocks(request)
    arguments: dict[str, Any] = {"hit": hit}
    assert manager.admit_slots(request, 8, full_sequence_must_fit=True, **arguments) is None
    assert manager.admit_slots(request, 8, **arguments) is not None


@pytest.mark.parametrize(
    ("cache", "most"),
    [
        ({}, 40),
        ({"block_size": 5}, 50),
        # 10 blocks: a window of 6 and 16 tokens in flight never need more than 7
        ({"sliding_window": 6}, 10**6),
        # a window's 7 blocks leave 3 to full attention; within the window both need all blocks
        ({"hybrid_window": 6}, 20),
        ({"hybrid_window": 30}, 20),
    ],
)
def test_what_fits_an_empty_cache(cache: dict[str, Any], most: int) -> None:
    manager = make_manager(10, **cache)
    request = make_request("a", 1)
    assert manager.fits_alone(request, most)
    if most < 10**6:
        assert not manager.fits_alone(request, most + 1)


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
