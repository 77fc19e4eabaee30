"""Every eviction policy against a naive one, and all of them in a toy cache of single blocks."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ConfigError
from workbench.kv_cache.eviction import (
    BeladyEviction,
    EvictionPolicy,
    FIFOEviction,
    LFUEviction,
    LRUEviction,
)

POLICIES = (LRUEviction, FIFOEviction, LFUEviction, BeladyEviction)


class NaiveEviction:
    """The blocks in order of release, ranked anew by a scan at every eviction."""

    def __init__(self, policy: type[EvictionPolicy], future: list[list[int]]) -> None:
        self.policy = policy
        self.future = [list(keys) for keys in future]
        self.free: list[int] = []
        self.first_release: dict[int, int] = {}
        self.hits: dict[int, int] = defaultdict(int)
        self.num_released = 0

    def insert_many(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self.num_released += 1
            self.first_release.setdefault(block, self.num_released)
            self.free.append(block)

    def rank(self, block: int) -> float:
        if self.policy is FIFOEviction:
            return self.first_release[block]
        if self.policy is LFUEviction:
            return self.hits[block]
        if self.policy is BeladyEviction:
            uses = (time for time, keys in enumerate(self.future) if block in keys)
            return -next(uses, inf)
        return 0.0

    def order(self) -> list[int]:
        return sorted(self.free, key=self.rank)  # stable: ties in order of release

    def pop_many(self, num_blocks: int) -> list[int]:
        victims = self.order()[:num_blocks]
        for block in victims:
            self.free.remove(block)
            del self.first_release[block]
            self.hits[block] = 0
        return victims

    def on_lookup(self, keys: Sequence[int]) -> None:
        for key in keys:
            for access in self.future:
                if key in access:
                    access.remove(key)
                    break


operations = st.lists(
    st.tuples(
        st.sampled_from(["release", "release", "hit", "evict", "look up"]),
        st.lists(st.integers(0, 11), min_size=1, max_size=5, unique=True),
    ),
    max_size=60,
)


@pytest.mark.parametrize("policy", POLICIES)
@given(steps=operations, future=st.lists(st.lists(st.integers(0, 11), unique=True), max_size=12))
@settings(max_examples=80, deadline=None)
def test_equals_a_scan(
    policy: type[EvictionPolicy], steps: list[tuple[str, list[int]]], future: list[list[int]]
) -> None:
    eviction, naive = policy(), NaiveEviction(policy, future)
    eviction.bind(lambda block: block)
    if isinstance(eviction, BeladyEviction):
        eviction.set_future(enumerate(future))
    for step, blocks in steps:
        inside = [block for block in blocks if block in naive.free]
        if step == "release":
            outside = [block for block in blocks if block not in naive.free]
            eviction.insert_many(outside)
            naive.insert_many(outside)
        elif step == "hit":
            eviction.on_hit(inside)
            if len(inside) == 1:
                eviction.remove(inside[0])
            else:
                eviction.remove_many(inside)
            for block in inside:
                naive.free.remove(block)
                naive.hits[block] += 1
        elif step == "evict":
            num_blocks = min(len(blocks), len(naive.free))
            assert eviction.pop_many(num_blocks) == naive.pop_many(num_blocks)
        else:
            eviction.on_lookup(blocks)
            naive.on_lookup(blocks)
        assert list(eviction) == naive.order()
        assert len(eviction) == len(naive.free)


@pytest.mark.parametrize("policy", POLICIES)
def test_blocks_that_come_and_go_leave_nothing_behind(policy: type[EvictionPolicy]) -> None:
    eviction = policy()
    eviction.bind(lambda block: block)
    if isinstance(eviction, BeladyEviction):
        eviction.set_future([])
    for _ in range(5000):
        eviction.insert_many([2, 1])
        eviction.remove(2)
        eviction.remove(1)
    assert len(eviction) == 0
    assert list(eviction) == []
    assert len(getattr(eviction, "_places", ())) + len(getattr(eviction, "_heap", ())) < 2000
    eviction.insert_many([2, 1])
    assert eviction.pop_many(2) == [2, 1]


def hits_in_toy_cache(policy: type[EvictionPolicy], accesses: list[int], num_blocks: int) -> int:
    """Run one-block requests, each of which ends before the next begins; count the hits."""
    eviction = policy()
    block_of: dict[Hashable, int] = {}
    key_of: dict[int, Hashable] = {}
    eviction.bind(key_of.__getitem__)
    if eviction.needs_future:
        eviction.set_future((time, [key]) for time, key in enumerate(accesses))  # type: ignore[attr-defined]
    empty = list(range(num_blocks))
    num_hits = 0
    for key in accesses:
        block = block_of.get(key)
        if block is not None:
            num_hits += 1
            eviction.on_hit([key])
            eviction.remove(block)
        elif empty:
            block = empty.pop()
        else:
            (block,) = eviction.pop_many(1)
            del block_of[key_of[block]]
        block_of[key], key_of[block] = block, key
        eviction.on_lookup([key])
        eviction.insert_many([block])
        assert len(eviction) + len(empty) == num_blocks
    return num_hits


@given(accesses=st.lists(st.integers(0, 9), max_size=120), num_blocks=st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_no_policy_beats_the_oracle(accesses: list[int], num_blocks: int) -> None:
    best = hits_in_toy_cache(BeladyEviction, accesses, num_blocks)
    for policy in (LRUEviction, FIFOEviction, LFUEviction):
        assert hits_in_toy_cache(policy, accesses, num_blocks) <= best


def test_the_oracle_beats_lru_on_a_loop() -> None:
    loop = list(range(5)) * 20
    assert hits_in_toy_cache(LRUEviction, loop, 4) == 0
    assert hits_in_toy_cache(BeladyEviction, loop, 4) >= 70


def test_lfu_keeps_what_is_popular_through_a_burst() -> None:
    burst = [0, 0, 0, *range(1, 6), 0]
    assert hits_in_toy_cache(LFUEviction, burst, 3) == 3
    assert hits_in_toy_cache(LRUEviction, burst, 3) == 2


def test_a_hit_makes_a_block_young_for_lru_and_not_for_fifo() -> None:
    orders = {}
    for policy in (LRUEviction, FIFOEviction):
        eviction = policy()
        eviction.insert_many([1, 2])
        eviction.remove(1)
        eviction.insert_many([1])
        orders[policy] = eviction.pop_many(2)
    assert orders == {LRUEviction: [2, 1], FIFOEviction: [1, 2]}


def test_the_oracle_needs_a_future() -> None:
    eviction = BeladyEviction()
    eviction.bind(lambda block: block)
    with pytest.raises(ConfigError, match="lru"):
        eviction.insert_many([1])
