"""Ids of prompt blocks: what requests share, said without tokens.

A block id stands for the block's tokens and everything before them, so equal ids at one index mean
equal prefixes ("chained" ids). Knows blocks and ids; knows nothing of arrivals or files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BlockIdColumn(Sequence[tuple[int, ...]]):
    """Block ids of many requests, told by ranges; the tuples are made when they are asked for.

    Row r holds the ids of its blocks `begin[r]` to `end[r] - 1`. Block j has the id
    `shared_first[r] + j` if `j < num_shared[r]` (a prefix that several sessions share),
    else `own_first[r] + j` (blocks of its own session). All arrays have shape [n].
    """

    shared_first: IntArray
    num_shared: IntArray
    own_first: IntArray
    begin: IntArray
    end: IntArray

    def __len__(self) -> int:
        return len(self.begin)

    @overload
    def __getitem__(self, index: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> "BlockIdColumn": ...
    def __getitem__(self, index: int | slice) -> "tuple[int, ...] | BlockIdColumn":
        if isinstance(index, slice):
            return self.take(np.arange(len(self), dtype=np.int64)[index])
        return _ids(
            int(self.shared_first[index]),
            int(self.num_shared[index]),
            int(self.own_first[index]),
            int(self.begin[index]),
            int(self.end[index]),
        )

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return map(
            _ids,
            self.shared_first.tolist(),
            self.num_shared.tolist(),
            self.own_first.tolist(),
            self.begin.tolist(),
            self.end.tolist(),
        )

    def take(self, rows: IntArray) -> "BlockIdColumn":
        """The given rows, in the given order."""
        return BlockIdColumn(
            self.shared_first[rows],
            self.num_shared[rows],
            self.own_first[rows],
            self.begin[rows],
            self.end[rows],
        )


def _ids(
    shared_first: int, num_shared: int, own_first: int, begin: int, end: int
) -> tuple[int, ...]:
    if begin >= num_shared:
        return tuple(range(own_first + begin, own_first + end))
    split = min(num_shared, end)
    shared = range(shared_first + begin, shared_first + split)
    return (*shared, *range(own_first + split, own_first + end))


def first_unchained_row(ids_of_rows: Sequence[Sequence[int]]) -> tuple[int, int] | None:
    """Find an id that follows different ids in different places, so that ids are not chained.

    Returns (row, id) of the first row, in order, that contradicts a row before it (or itself), or
    None when all ids are chained. Raises OverflowError for an id beyond 64 bits.
    """
    lengths = np.fromiter(map(len, ids_of_rows), np.int64, len(ids_of_rows))
    total = int(lengths.sum())
    if total == 0:
        return None
    flat = np.fromiter(chain.from_iterable(ids_of_rows), np.int64, total)
    starts = (np.cumsum(lengths) - lengths)[lengths > 0]
    is_first = np.zeros(total, bool)
    is_first[starts] = True
    parent = np.concatenate((flat[:1], flat[:-1]))
    parent[is_first] = 0
    order = np.argsort(flat, kind="stable")
    is_new = np.concatenate(([True], np.diff(flat[order]) != 0))
    first_place = order[is_new][np.cumsum(is_new) - 1]  # where each id stands for the first time
    differs = (parent[order] != parent[first_place]) | (is_first[order] != is_first[first_place])
    if not differs.any():
        return None
    place = int(order[differs].min())
    row = int(np.searchsorted(np.cumsum(lengths), place, side="right"))
    return row, int(flat[place])
