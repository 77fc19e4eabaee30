"""Looks through token ids in slices: a call that goes through millions holds the interpreter.

Between two slices other threads get their turn, so these functions are for threads beside an event
loop. Knows integers; knows no vocabulary of its own and no prompt.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

SLICE = 2**15
"""Items between two chances for others: a millisecond or so."""


def kinds_of(values: Sequence[Any]) -> set[type]:
    """The types of the values."""
    kinds: set[type] = set()
    for start in range(0, len(values), SLICE):
        kinds.update(map(type, values[start : start + SLICE]))
    return kinds


def first_outside(token_ids: Sequence[int], vocab_size: int) -> int | None:
    """The first id that is below 0, or not below the vocabulary's size; None: there is none."""
    for start in range(0, len(token_ids), SLICE):
        part = token_ids[start : start + SLICE]
        array = np.array(part)
        if array.min() < 0 or array.max() >= vocab_size:
            return next(i for i in part if not 0 <= i < vocab_size)
    return None
