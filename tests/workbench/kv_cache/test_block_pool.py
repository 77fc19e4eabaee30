"""The block pool against a plain model of vLLM's free queue, and its errors."""

from collections.abc import Hashable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from workbench.errors import SchedulerError
from workbench.kv_cache.block_pool import NULL_BLOCK, BlockPool
from workbench.kv_cache.eviction import LRUEviction


def make_pool(num_blocks: int = 10) -> BlockPool:
    return BlockPool(num_blocks, LRUEviction())


class Model:
    """The free blocks as one list: freed ones go to its end, to its front without content."""

    def __init__(self, num_blocks: int) -> None:
        self.line = list(range(1, num_blocks + 1))
        self.refs = dict.fromkeys(self.line, 0)
        self.key_of: dict[int, Hashable] = {}
        self.blocks_of: dict[Hashable, list[int]] = {}

    def take(self, count: int) -> list[int]:
        taken, self.line = self.line[:count], self.line[count:]
        for block in taken:
            self.refs[block] = 1
            self.forget(block)
        return taken

    def forget(self, block: int) -> None:
        if block in self.key_of:
            key = self.key_of.pop(block)
            self.blocks_of[key].remove(block)
            if not self.blocks_of[key]:
                del self.blocks_of[key]

    def touch(self, blocks: list[int]) -> None:
        for block in blocks:
            self.refs[block] += 1
            if self.refs[block] == 1:
                self.line.remove(block)

    def free(self, blocks: list[int]) -> None:
        released = []
        for block in blocks:
            self.refs[block] -= 1
            if not self.refs[block]:
                released.append(block)
        cached = [b for b in released if b in self.key_of]
        self.line = [b for b in released if b not in self.key_of] + self.line + cached

    def cache(self, block: int, key: Hashable) -> None:
        self.key_of[block] = key
        self.blocks_of.setdefault(key, []).append(block)


class PoolMachine(RuleBasedStateMachine):
    """Tables are taken, their blocks become known one by one, are hit again, and given back."""

    @initialize(num_blocks=st.integers(1, 24))
    def start(self, num_blocks: int) -> None:
        self.pool = make_pool(num_blocks)
        self.model = Model(num_blocks)
        self.tables: list[list[int]] = []

    @rule(count=st.integers(1, 8))
    def take(self, count: int) -> None:
        if count > len(self.model.line):
            with pytest.raises(SchedulerError):
                self.pool.get_new_blocks(count)
            return
        blocks = self.pool.get_new_blocks(count)
        assert blocks == self.model.take(count)
        self.tables.append(list(blocks))

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), group=st.integers(0, 2), most=st.integers(1, 8))
    def fill(self, data: st.DataObject, group: int, most: int) -> None:
        table = data.draw(st.sampled_from(self.tables))
        first = sum(1 for block in table if block in self.model.key_of)
        if any(b not in self.model.key_of for b in table[:first]):
            return
        blocks = table[first : first + most]
        keys = [(group, i) for i in range(first, first + len(blocks))]
        self.pool.cache_full_blocks(blocks, keys)
        for block, key in zip(blocks, keys, strict=True):
            self.model.cache(block, key)

    @rule(group=st.integers(0, 2), length=st.integers(1, 8))
    def hit(self, group: int, length: int) -> None:
        blocks = self.pool.longest_prefix([(group, i) for i in range(length)])
        for i, block in enumerate(blocks):
            assert self.model.blocks_of[group, i][0] == block
        if len(blocks) < length:
            assert (group, len(blocks)) not in self.model.blocks_of
        if not blocks or len(set(blocks)) < len(blocks):
            return
        free = sum(1 for b in blocks if not self.model.refs[b])
        assert self.pool.count_unreferenced([NULL_BLOCK, *blocks]) == free
        self.pool.touch([NULL_BLOCK, *blocks])
        self.model.touch(blocks)
        self.tables.append(blocks)

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), null_first=st.booleans())
    def release(self, data: st.DataObject, null_first: bool) -> None:
        table = self.tables.pop(data.draw(st.integers(0, len(self.tables) - 1)))
        nulls = [NULL_BLOCK] if null_first else []
        self.pool.free_blocks([*reversed(table), *nulls])
        self.model.free(table[::-1])

    @rule()
    def reset(self) -> None:
        assert self.pool.reset_prefix_cache() == (not self.tables)
        if not self.tables:
            for block in list(self.model.key_of):
                self.model.forget(block)

    @invariant()
    def agrees(self) -> None:
        pool, model = self.pool, self.model
        pool.check_integrity()
        assert pool.free_line() == model.line
        assert pool.num_free_blocks == len(model.line)
        for key in [(g, i) for g in range(3) for i in range(8)]:
            held = model.blocks_of.get(key)
            assert pool.get_cached_block(key) == (held[0] if held else None)
        for block, refs in model.refs.items():
            assert pool.ref_counts[block] == refs


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, derandomize=True
)


def test_asking_for_too_much_names_both_numbers_and_takes_nothing() -> None:
    pool = make_pool(4)
    pool.get_new_blocks(1)
    with pytest.raises(SchedulerError, match="4 blocks asked for, 3 are free"):
        pool.get_new_blocks(4)
    assert pool.free_line() == [2, 3, 4]


def test_a_key_held_twice_survives_the_loss_of_either_block() -> None:
    for first_to_go in (0, 1):
        pool = make_pool(2)
        one, two = pool.get_new_blocks(1), pool.get_new_blocks(1)
        pool.cache_full_blocks(one, ["k"])
        pool.cache_full_blocks(two, ["k"])
        assert pool.get_cached_block("k") == one[0]
        tables = [one, two]
        pool.free_blocks(tables[first_to_go])
        assert pool.get_new_blocks(1) == tables[first_to_go]  # evicts it
        assert pool.get_cached_block("k") == tables[1 - first_to_go][0]
        pool.free_blocks(tables[1 - first_to_go])
        assert pool.get_new_blocks(1) == tables[1 - first_to_go]
        assert pool.get_cached_block("k") is None
        pool.check_integrity()


def test_the_end_of_a_prefix_is_evicted_before_its_beginning() -> None:
    pool = make_pool(6)
    table = pool.get_new_blocks(3)
    pool.cache_full_blocks(table, list("abc"))
    pool.free_blocks(table[::-1])
    assert pool.free_line() == [4, 5, 6, 3, 2, 1]
    pool.get_new_blocks(4)
    assert pool.longest_prefix(list("abc")) == [1, 2]


def test_a_reset_forgets_all_content_but_only_of_an_idle_pool() -> None:
    pool = make_pool(5)
    table = pool.get_new_blocks(2)
    pool.cache_full_blocks(table, ["a", "b"])
    assert not pool.reset_prefix_cache()
    assert pool.get_cached_block("a") == 1
    pool.free_blocks(table[::-1])
    line = pool.free_line()
    assert pool.reset_prefix_cache()
    assert pool.get_cached_block("a") is None
    assert pool.free_line() == line
    assert pool.get_new_blocks(5) == line
    pool.check_integrity()


@pytest.mark.parametrize(
    "damage",
    [
        lambda pool: pool.ref_counts.__setitem__(1, 0),
        lambda pool: pool.ref_counts.__setitem__(4, 1),
        lambda pool: pool.ref_counts.__setitem__(4, -1),
        lambda pool: pool.key_of.__setitem__(4, "z"),
    ],
    ids=["leak", "used_and_free", "freed_too_often", "unknown_key"],
)
def test_the_integrity_check_finds_damage(damage: object) -> None:
    pool = make_pool(5)
    pool.cache_full_blocks(pool.get_new_blocks(2), ["a", "b"])
    pool.check_integrity()
    damage(pool)  # type: ignore[operator]
    with pytest.raises(AssertionError):
        pool.check_integrity()
