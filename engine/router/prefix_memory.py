"""What a backend's prefix cache probably holds: the keys of the prompt blocks it was sent.

An estimate: it sees neither the backend's evictions nor the requests of other routers.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence


class PrefixMemory:
    """A bounded set of chained keys; the least recently sent are forgotten first.

    A key of a chain is always remembered with all keys before it.

    Args:
        max_blocks: Most keys, at least 1.
    """

    def __init__(self, max_blocks: int) -> None:
        self._max_blocks = max_blocks
        self._keys: OrderedDict[Hashable, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: Sequence[Hashable]) -> None:
        """Remember a prompt's keys; of one that is too long, the first ones."""
        known = self._keys
        # the last block first, so that a chain is forgotten from its end
        for key in reversed(keys[: self._max_blocks]):
            known[key] = None
            known.move_to_end(key)
        while len(known) > self._max_blocks:
            known.popitem(last=False)

    def num_known(self, keys: Sequence[Hashable]) -> int:
        """How many of the first keys are remembered."""
        low, high = 0, len(keys)
        while low < high:
            middle = (low + high) // 2
            if keys[middle] in self._keys:
                low = middle + 1
            else:
                high = middle
        return low

    def clear(self) -> None:
        """Forget everything: the backend has started anew."""
        self._keys.clear()
