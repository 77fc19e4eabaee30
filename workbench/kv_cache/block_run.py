"""Cached blocks of consecutive keys that share their users: what the run pool works on as one.

A long prompt is hundreds of blocks that come, are hit and go together. Keys are chained (equal keys
mean equal keys before them), so a run needs to be known by its first key only, and two runs agree
up to a place if they agree at it.
"""

from collections.abc import Hashable, Sequence

from workbench.kv_cache.block_hash import Chain


class HeldRuns:
    """The cached blocks that one block table uses.

    Args:
        chain: Keys of the table's blocks by their place in it; also tells whose runs may grow.

    Attributes:
        runs: In the order of the table, without a gap from its first block on.
    """

    __slots__ = ("chain", "runs")

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.runs: list[BlockRun] = []


class BlockRun:
    """Blocks of one chain that follow each other and have the same users.

    Args:
        chain: Keys by place. It is kept as long as the run, so it should hold nothing but keys.
        start: Place of the first block.
        blocks: Physical block ids; never empty.

    Attributes:
        holders: The tables that use it. A run without any stands in the line of free blocks.
        is_double: Its key, of its only block, is held by another block that was cached before.
    """

    __slots__ = ("blocks", "chain", "holders", "is_double", "start")

    def __init__(self, chain: Chain, start: int, blocks: list[int]) -> None:
        self.chain = chain
        self.start = start
        self.blocks = blocks
        self.holders: list[HeldRuns] = []
        self.is_double = False

    @property
    def first_key(self) -> Hashable:
        """The key it is known by."""
        return self.chain[self.start]

    def num_equal(self, chain: Chain, place: int, most: int) -> int:
        """How many of its first blocks hold the keys of another chain.

        Args:
            chain: Keys by place; at `place` that of the first block.
            place: Where the run would begin.
            most: Blocks to compare, 1 to its length.
        """
        own, start = self.chain, self.start
        if own is chain or own[start + most - 1] == chain[place + most - 1]:
            return most
        equal, unequal = 0, most - 1
        while unequal - equal > 1:
            middle = (equal + unequal) // 2
            if own[start + middle] == chain[place + middle]:
                equal = middle
            else:
                unequal = middle
        return equal + 1


class RunHit(list[int]):
    """The cached blocks of the longest prefix of a chain: their ids, and the runs they are in.

    Args:
        parts: (run, how many of its first blocks), in the order of the chain.

    Attributes:
        num_unreferenced: How many of the blocks stood in the line of free ones when found.
    """

    __slots__ = ("num_unreferenced", "parts")

    def __init__(self, parts: Sequence[tuple[BlockRun, int]]) -> None:
        super().__init__()
        self.parts = parts
        self.num_unreferenced = 0
        for run, count in parts:
            self += run.blocks[:count]
            if not run.holders:
                self.num_unreferenced += count
