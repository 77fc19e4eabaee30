"""Blocks moved in runs against blocks moved one by one: the same ids in the same order."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from workbench.config import CacheConfig
from workbench.errors import SchedulerError
from workbench.kv_cache.block_hash import KnownBlockHashes
from workbench.kv_cache.block_pool import BlockPool
from workbench.kv_cache.eviction import LFUEviction, LRUEviction
from workbench.kv_cache.kv_cache_manager import KVCacheManager
from workbench.kv_cache.run_pool import RunPool
from workbench.request import Request

SIZE = 2


def make_manager(num_blocks: int, use_runs: bool, caches_late: bool = False) -> KVCacheManager:
    return KVCacheManager(
        CacheConfig(block_size=SIZE),
        num_blocks,
        max_model_len=1000,
        max_in_flight_tokens=1000,
        eviction=LRUEviction(),
        caches_late=caches_late,
        use_runs=use_runs,
    )


def chain(text: str) -> list[str]:
    """Chained keys: each names all letters up to its own."""
    return [text[: i + 1] for i in range(len(text))]


def make_request(ordinal: int, text: str, num_shared: int, num_tokens: int) -> Request:
    """A request whose first `num_shared` full blocks hold the letters of `text`."""
    hashes = KnownBlockHashes(ordinal, chain(text[:num_shared]), min(num_shared, num_tokens // 2))
    return Request(str(ordinal), num_tokens, 100, block_hashes=hashes)


class Twins:
    """The same requests in two caches, which must never differ."""

    def __init__(self, num_blocks: int, caches_late: bool) -> None:
        self.managers = [
            make_manager(num_blocks, use_runs=True, caches_late=caches_late),
            make_manager(num_blocks, use_runs=False),
        ]
        self.live: list[tuple[Request, Request]] = []
        self.idle: list[tuple[Request, Request]] = []

    def admit(self, pair: tuple[Request, Request], num_tokens: int) -> None:
        hits = [m.get_computed_blocks(r) for m, r in zip(self.managers, pair, strict=True)]
        assert list(map(list, hits[0].blocks)) == list(map(list, hits[1].blocks))
        num_new = min(num_tokens, pair[0].num_tokens - hits[0].num_tokens)
        got = [
            m.admit_slots(r, num_new, hit)
            for m, r, hit in zip(self.managers, pair, hits, strict=True)
        ]
        assert got[0] == got[1]
        if got[0] is None:
            self.idle.append(pair)
            return
        self.live.append(pair)
        for request in pair:
            request._num_computed_tokens = hits[0].num_tokens + num_new

    def go_on(self, pair: tuple[Request, Request], num_tokens: int) -> None:
        num_new = min(num_tokens, pair[0].num_tokens - pair[0].num_computed_tokens)
        if not num_new:
            num_new = 1
            for request in pair:
                request._num_output_tokens += 1
        got = [m.allocate_slots(r, num_new) for m, r in zip(self.managers, pair, strict=True)]
        assert got[0] == got[1]
        if got[0] is not None:
            for request in pair:
                request._num_computed_tokens += num_new

    def release(self, pair: tuple[Request, Request], comes_back: bool) -> None:
        self.live.remove(pair)
        for manager, request in zip(self.managers, pair, strict=True):
            manager.free(request)
            request._num_computed_tokens = 0
        if comes_back:
            self.idle.append(pair)

    def check(self, texts: list[str]) -> None:
        runs, blocks = self.managers
        for manager, side in ((runs, 0), (blocks, 1)):
            manager.check_integrity(pair[side] for pair in self.live)
        assert runs.num_free_blocks == blocks.num_free_blocks
        for pair in self.live:
            assert pair[0].block_ids == pair[1].block_ids
        for text in texts:
            keys = chain(text)
            assert runs.num_cached_prefix_tokens(keys) == blocks.num_cached_prefix_tokens(keys)


def texts_of(random: Random) -> Iterator[str]:
    """A few sequences that fork at different places."""
    stems = ["a" * 12, "b" * 12]
    for _ in range(4):
        stem = random.choice(stems)
        fork = random.randrange(1, 10)
        stems.append(stem[:fork] + "".join(random.choice("cd") for _ in range(12 - fork)))
    yield from stems


@pytest.mark.parametrize("caches_late", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_runs_decide_what_single_blocks_decide(seed: int, caches_late: bool) -> None:
    random = Random(seed)
    texts = list(texts_of(random))
    twins = Twins(random.randrange(6, 50), caches_late)
    for step in range(250):
        choice = random.random()
        if choice < 0.35:
            text, shared = random.choice(texts), random.randrange(0, 13)
            num_tokens = random.randrange(1, 30)
            pair = tuple(make_request(step, text, shared, num_tokens) for _ in range(2))
            twins.admit((pair[0], pair[1]), random.randrange(1, 30))
        elif choice < 0.45 and twins.idle:
            twins.admit(twins.idle.pop(random.randrange(len(twins.idle))), random.randrange(1, 30))
        elif choice < 0.75 and twins.live:
            twins.go_on(random.choice(twins.live), random.choice([1, 1, 3, 9]))
        elif twins.live:
            twins.release(random.choice(twins.live), random.random() < 0.3)
        twins.check(texts)
        assert twins.managers[0].pool.free_line() == twins.managers[1].pool.free_line()


def test_runs_are_for_full_attention_with_the_lru_order() -> None:
    def pool(config: CacheConfig, lfu: bool = False) -> object:
        eviction = LFUEviction() if lfu else LRUEviction()
        return KVCacheManager(config, 9, 100, 100, eviction).pool

    assert isinstance(pool(CacheConfig()), RunPool)
    for config in (CacheConfig(sliding_window=8), CacheConfig(hybrid_window=8)):
        assert isinstance(pool(config), BlockPool)
    assert isinstance(pool(CacheConfig(), lfu=True), BlockPool)


def test_asking_for_too_much_names_both_numbers_and_takes_nothing() -> None:
    pool = RunPool(4)
    assert pool.get_new_blocks(1) == [1]
    with pytest.raises(SchedulerError, match="4 blocks asked for, 3 are free"):
        pool.get_new_blocks(4)
    assert pool.free_line() == [2, 3, 4]


def test_a_long_prompt_is_one_run_however_it_was_computed() -> None:
    manager = make_manager(40, use_runs=True)
    request = make_request(0, "a" * 30, 30, 60)
    manager.admit_slots(request, 7)
    for computed in range(7, 60, 7):
        request._num_computed_tokens = computed
        manager.allocate_slots(request, min(7, 60 - computed))
    assert request.held_runs is not None
    assert [len(run.blocks) for run in request.held_runs.runs] == [30]


def test_ids_that_are_not_chained_harm_nobody() -> None:
    random = Random(0)
    manager = make_manager(12, use_runs=True)
    for ordinal in range(400):
        keys = [random.randrange(4) for _ in range(6)]
        request = Request(str(ordinal), 13, 1, block_hashes=KnownBlockHashes(ordinal, keys, 6))
        hit = manager.get_computed_blocks(request)
        blocks = manager.admit_slots(request, 13 - hit.num_tokens, hit)
        assert blocks is not None
        request._num_computed_tokens = 13
        manager.free(request)
        assert sorted(manager.pool.free_line()) == list(range(1, 13))


@pytest.mark.parametrize(
    "damage",
    [
        lambda pool, request: pool._empty.append(request.block_ids[0][0]),
        lambda pool, request: pool._empty.pop(),
        lambda pool, request: request.held_runs.runs.pop(),
        lambda pool, request: request.held_runs.runs[0].holders.clear(),
        lambda pool, request: request.held_runs.runs[0].blocks.reverse(),
        lambda pool, request: pool._runs.clear(),
    ],
    ids=["used_and_free", "leak", "lost_run", "lost_user", "other_blocks", "unknown"],
)
def test_the_integrity_check_finds_damage(damage: Callable[[Any, Request], Any]) -> None:
    manager = make_manager(9, use_runs=True)
    request = make_request(0, "abcd", 4, 9)
    manager.admit_slots(request, 9)
    manager.check_integrity([request])
    damage(manager.pool, request)
    with pytest.raises(AssertionError):
        manager.check_integrity([request])
