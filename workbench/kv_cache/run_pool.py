"""The physical KV blocks of a replica with full attention and LRU eviction, moved in runs.

It decides what BlockPool with LRUEviction decides, to the block id, at a cost per run instead of
per block. What makes this possible: a request's blocks are freed together, the end of its sequence
first, so what is cached of a sequence is always a prefix of it and only ever loses its end. A
second block with a key that is cached already is kept as a run of its own (a double) and takes the
place of the first when that goes. The pool knows nothing of requests.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

from workbench.errors import SchedulerError
from workbench.kv_cache.block_hash import Chain
from workbench.kv_cache.block_pool import show_state
from workbench.kv_cache.block_run import BlockRun, HeldRuns, RunHit


class RunPool:
    """Blocks 1 to `num_blocks`, as in BlockPool.

    Args:
        num_blocks: Usable blocks.

    Attributes:
        num_free_blocks: Blocks that nobody references.
        num_shared_refs: As in BlockPool.
    """

    __slots__ = (
        "_doubles",
        "_empty",
        "_line",
        "_runs",
        "num_blocks",
        "num_free_blocks",
        "num_shared_refs",
    )

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.num_free_blocks = num_blocks
        self.num_shared_refs = 0
        self._runs: dict[Hashable, BlockRun] = {}  # by first key, doubles left out
        self._doubles: dict[Hashable, list[BlockRun]] = {}  # in the order they were cached
        # The line of free blocks: a stack of those without content, its top first; then cached runs
        # in the order they were released, the last block of each first.
        self._empty = list(range(num_blocks, 0, -1))
        self._line: OrderedDict[BlockRun, None] = OrderedDict()

    def find(self, chain: Chain, num_blocks: int) -> RunHit:
        """The cached blocks of the longest prefix of the first `num_blocks` keys."""
        return RunHit(self._parts(chain, num_blocks))

    def _parts(self, chain: Chain, num_blocks: int) -> list[tuple[BlockRun, int]]:
        lookup = self._runs.get
        parts = []
        place = 0
        while place < num_blocks:
            run = lookup(chain[place])
            if run is None:
                break
            # Where the chain leaves the run, another run may go on: a run can grow past a fork.
            count = run.num_equal(chain, place, min(len(run.blocks), num_blocks - place))
            parts.append((run, count))
            place += count
        return parts

    def num_cached_blocks(self, keys: Sequence[Hashable]) -> int:
        """Blocks of the longest cached prefix of these keys."""
        return sum([count for _, count in self._parts(keys, len(keys))])

    def get_new_blocks(self, num_blocks: int) -> list[int]:
        """Take the first blocks of the line; what they held is forgotten."""
        if num_blocks > self.num_free_blocks:
            raise SchedulerError(
                f"{num_blocks} blocks asked for, {self.num_free_blocks} are free: check first"
            )
        empty = self._empty
        num_empty = min(num_blocks, len(empty))
        blocks = empty[: -num_empty - 1 : -1]
        if num_empty:
            del empty[-num_empty:]
        self.num_free_blocks -= num_blocks
        if num_empty < num_blocks:
            self._evict(num_blocks - num_empty, blocks)
        return blocks

    def get_new_block(self) -> int:
        """Take the first block of the line; there must be one."""
        self.num_free_blocks -= 1
        if self._empty:
            return self._empty.pop()
        blocks = next(iter(self._line)).blocks
        if len(blocks) > 1 and not self._doubles:
            return blocks.pop()
        victims: list[int] = []
        self._evict(1, victims)
        return victims[0]

    def adopt(self, held: HeldRuns, hit: RunHit) -> None:
        """Reference the blocks of a hit; free ones leave the line.

        Args:
            held: Of a table that uses nothing yet.
            hit: Found since the pool was last changed.
        """
        for run, count in hit.parts:
            is_free = not run.holders
            if count < len(run.blocks):
                run = self._split(run, count)
            elif is_free:
                del self._line[run]
            if is_free:
                self.num_free_blocks -= count
            else:
                self.num_shared_refs += count
            run.holders.append(held)
            held.runs.append(run)

    def cache_full_blocks(self, held: HeldRuns, start: int, blocks: list[int]) -> None:
        """Make full blocks known under the keys of their places.

        Args:
            held: Of the table that computed them; everything before `start` is cached.
            start: Place of the first of them.
            blocks: At least one; the list is kept.
        """
        chain = held.chain
        last = held.runs[-1] if held.runs else None
        if (last is not None and last.is_double) or chain[start] in self._runs:
            num_doubles = self._cache_doubles(held, start, blocks)
            start += num_doubles
            blocks = blocks[num_doubles:]
            if not blocks:
                return
        elif last is not None and last.chain is chain and len(last.holders) == 1:
            last.blocks += blocks
            return
        self._runs[chain[start]] = self._new_run(held, start, blocks)

    def grow(self, held: HeldRuns, key: Hashable, block: int) -> bool:
        """`cache_full_blocks` for one block, if a table's last run may simply grow by it.

        Args:
            held: Of the table that computed it; it holds something.
            key: The block's.
            block: The first of the table that is not cached.
        """
        last = held.runs[-1]
        is_own = last.chain is held.chain and len(last.holders) == 1
        if not is_own or last.is_double or key in self._runs:
            return False
        last.blocks.append(block)
        return True

    def _cache_doubles(self, held: HeldRuns, start: int, blocks: list[int]) -> int:
        """Keep the blocks apart whose keys are cached already; how many they are.

        They are the first ones: where a chain is not cached, nothing behind it is.
        """
        chain = held.chain
        num_doubles = max(len(self.find(chain, start + len(blocks))) - start, 0)
        for place, block in enumerate(blocks[:num_doubles], start):
            run = self._new_run(held, place, [block])
            run.is_double = True
            self._doubles.setdefault(chain[place], []).append(run)
        return num_doubles

    @staticmethod
    def _new_run(held: HeldRuns, start: int, blocks: list[int]) -> BlockRun:
        run = BlockRun(held.chain, start, blocks)
        run.holders.append(held)
        held.runs.append(run)
        return run

    def free_blocks(self, held: HeldRuns | None, empty: list[int]) -> None:
        """Drop a table's references.

        Args:
            held: Its cached blocks, the last of which will be the first to be evicted.
            empty: Its other blocks, in the order of the table.
        """
        if empty:
            self._empty += empty
            self.num_free_blocks += len(empty)
        if held is None:
            return
        for run in reversed(held.runs):
            run.holders.remove(held)
            if run.holders:
                self.num_shared_refs -= len(run.blocks)
            else:
                self._line[run] = None
                self.num_free_blocks += len(run.blocks)
        held.runs = []

    def reset_prefix_cache(self) -> bool:
        """Forget all content; only possible, and True, while no block is referenced."""
        if self.num_free_blocks != self.num_blocks:
            return False
        victims: list[int] = []
        self._evict(self.num_blocks - len(self._empty), victims)
        self._empty[:0] = reversed(victims)
        return True

    def _split(self, run: BlockRun, count: int) -> BlockRun:
        """Cut off the first blocks of a run as a run of their own, with the same users.

        The rest stays where it is, in the line or with its users.
        """
        front = BlockRun(run.chain, run.start, run.blocks[:count])
        front.holders = run.holders.copy()
        for held in run.holders:
            held.runs.insert(held.runs.index(run), front)
        run.start += count
        del run.blocks[:count]
        self._runs[front.first_key] = front
        self._runs[run.first_key] = run
        return front

    def _evict(self, num_blocks: int, victims: list[int]) -> None:
        """Append the first cached blocks of the line to `victims` and forget what they held."""
        line = self._line
        while num_blocks:
            run = next(iter(line))
            count = min(num_blocks, len(run.blocks))
            victims += run.blocks[: -count - 1 : -1]
            num_blocks -= count
            self._drop_end(run, count)
            if not run.blocks:
                del line[run]

    def forget_end(self, held: HeldRuns, num_blocks: int) -> None:
        """Make the last cached blocks of a table unknown again.

        Args:
            held: Its cached blocks.
            num_blocks: How many; nobody else uses them.
        """
        while num_blocks:
            run = held.runs[-1]
            assert len(run.holders) == 1, "another table uses blocks that are to be forgotten"
            count = min(num_blocks, len(run.blocks))
            num_blocks -= count
            self._drop_end(run, count)
            if not run.blocks:
                held.runs.pop()

    def _drop_end(self, run: BlockRun, count: int) -> None:
        """Take the last `count` blocks out of a run, and forget what they held."""
        del run.blocks[-count:]
        if self._doubles:
            self._hand_on(run, count)
        elif not run.blocks:
            self._forget(run)

    def _forget(self, run: BlockRun) -> None:
        """Forget the first key of a run whose blocks have gone."""
        # Ids that are not chained, against the rules, may have given the key to another run.
        if self._runs.get(run.first_key) is run:
            del self._runs[run.first_key]

    def _hand_on(self, run: BlockRun, count: int) -> None:
        """Forget the keys of a run's last `count` blocks, which have gone, or give them doubles."""
        if run.is_double:
            others = self._doubles[run.first_key]
            others.remove(run)
            if not others:
                del self._doubles[run.first_key]
            return
        end = run.start + len(run.blocks)
        for place in range(end, end + count):
            key = run.chain[place]
            heirs = self._doubles.get(key)
            if heirs:
                heir = self._runs[key] = heirs.pop(0)
                heir.is_double = False
                if not heirs:
                    del self._doubles[key]
            elif place == run.start:
                self._forget(run)

    def free_line(self) -> list[int]:
        """All free blocks in the order in which they would be handed out."""
        return [*reversed(self._empty), *(b for run in self._line for b in reversed(run.blocks))]

    def block_states(self) -> bytes:
        """What blocks 1 to `num_blocks` are, for people to look at; see `show_state`."""
        # What is neither empty nor cached is the end of one request's table.
        states = bytearray([show_state(1, False)]) * (self.num_blocks + 1)
        for block in self._empty:
            states[block] = 0
        doubles = [run for others in self._doubles.values() for run in others]
        for run in (*self._runs.values(), *doubles):
            state = show_state(len(run.holders), True)
            for block in run.blocks:
                states[block] = state
        return bytes(states[1:])

    def knows(self, run: BlockRun) -> bool:
        """Whether a run is found by its key, now or once those before it have gone."""
        if run.is_double:
            return run in self._doubles.get(run.first_key, ())
        return self._runs.get(run.first_key) is run

    def check_integrity(self) -> None:
        """Raise AssertionError unless free blocks, runs and keys agree."""
        line = self.free_line()
        assert len(line) == len(set(line)) == self.num_free_blocks, "a block is free twice, or lost"
        doubles = [run for others in self._doubles.values() for run in others]
        assert all(run.is_double and len(run.blocks) == 1 for run in doubles), "a double is none"
        assert not any(run.is_double for run in self._runs.values()), "a double is known by its key"
        known = {*self._runs.values(), *doubles}
        for key, run in self._runs.items():
            assert run.first_key == key, "a run is known by another key"
        assert set(self._line) <= known, "a free run cannot be found"
        for run in known:
            assert run.blocks, "a run is empty"
            assert bool(run.holders) != (run in self._line), "a run is free and used, or neither"
            assert all(held.runs.count(run) == 1 for held in run.holders), "a run has a wrong user"
