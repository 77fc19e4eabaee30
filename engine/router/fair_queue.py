"""Who is next: clients take turns, however many requests each of them has waiting.

Knows keys of clients and items, and no reason why an item waits.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A line for each client, first come first served; the lines take turns. Items are hashable."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        """All items, the next first: the heads of the lines, then the seconds, and so on."""
        lines = [list(line) for line in self._lines.values()]
        longest = max(map(len, lines), default=0)
        rows = ([line[i] for line in lines if i < len(line)] for i in range(longest))
        return chain.from_iterable(rows)

    def push(self, client: str, item: T, *, front: bool = False) -> None:
        """Queue an item at the end of its client's line, or before the others in it."""
        line = self._lines.setdefault(client, OrderedDict())
        if item in line:
            raise ValueError(f"the item {item!r} waits already")
        line[item] = None
        line.move_to_end(item, last=not front)
        self._size += 1

    def remove(self, client: str, item: T, *, served: bool = False) -> bool:
        """Take an item out, wherever it stands; whether it was there.

        A client that was served goes behind the other ones.
        """
        line = self._lines.get(client)
        if line is None or item not in line:
            return False
        del line[item]
        self._size -= 1
        if not line:
            del self._lines[client]
        elif served:
            self._lines.move_to_end(client)
        return True
