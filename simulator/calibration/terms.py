"""What a step's time is a sum of: a few counts of its shape, each with a price of at least 0.

Knows which counts there are and how prices become seconds. It does not know where prices come from.

The time of matrix products is no straight line in tokens (tiles, caches, memory bound and then
compute bound), but it never falls: `tokens` is piecewise linear between nodes, each piece with a
slope of its own.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from workbench.step_profile import StepShape

Array = NDArray[np.float64]
COUNTS = (
    "step",  # 1
    "decodes",  # rows of one token
    "decode_context",  # keys that they read
    "decode_padding",  # keys that they would read besides if each were as long as the longest
    "chunks",  # rows of several tokens
    "chunk_pairs",  # pairs of a query and a key in them
    "chunk_context",  # keys that they read
    "samples",  # rows of logits
    "swap_blocks",  # KV blocks copied to or from the host
)


def counts(shape: StepShape) -> tuple[float, ...]:
    """The values of `COUNTS`."""
    pairs, keys = 0.0, 0
    for query, context in shape.prefills:
        pairs += query * (context + 0.5 * (query + 1))
        keys += query + context
    padding = max(shape.num_decodes * shape.longest_decode - shape.decode_context, 0)
    return (
        1.0,
        float(shape.num_decodes),
        float(shape.decode_context),
        float(padding),
        float(len(shape.prefills)),
        pairs,
        float(keys),
        float(shape.num_samples),
        float(shape.num_swap_blocks),
    )


def count_matrix(shapes: Sequence[StepShape]) -> Array:
    """[steps, COUNTS]."""
    return np.array([counts(shape) for shape in shapes], dtype=np.float64).reshape(-1, len(COUNTS))


def piece_matrix(tokens: Array, nodes: Sequence[float]) -> Array:
    """[steps, pieces]: tokens of each step that lie between two nodes; the last piece is open."""
    ends = [*nodes[1:-1], np.inf] if len(nodes) > 1 else []
    pieces = [np.clip(tokens, low, high) - low for low, high in zip(nodes[:-1], ends, strict=True)]
    return np.stack(pieces, axis=1) if pieces else np.zeros((len(tokens), 0))


@dataclass(frozen=True)
class Prices:
    """Prices of a step's parts.

    Attributes:
        seconds: Of one of each of `COUNTS`; those that are left out cost nothing.
        token_nodes: Tokens at which the slope changes, from 0, ascending.
        token_slopes: Seconds a token between two nodes; the last slope goes on behind the end.
    """

    seconds: Mapping[str, float]
    token_nodes: tuple[float, ...] = ()
    token_slopes: tuple[float, ...] = ()
    _at_nodes: list[float] = field(init=False, repr=False, compare=False)
    _prices: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = [0.0]
        for (low, high), slope in zip(pairwise(self.token_nodes), self.token_slopes, strict=True):
            values.append(values[-1] + slope * (high - low))
        object.__setattr__(self, "_at_nodes", values)
        object.__setattr__(self, "_prices", tuple(self.seconds.get(n, 0.0) for n in COUNTS))

    def __call__(self, shape: StepShape) -> float:
        """Seconds of a step."""
        total = self.of_tokens(shape.num_tokens)
        for price, count in zip(self._prices, counts(shape), strict=True):
            total += price * count
        return total

    def scaled(self, factor: float) -> "Prices":
        """Prices that many times as high."""
        return Prices(
            {name: factor * price for name, price in self.seconds.items()},
            self.token_nodes,
            tuple(factor * slope for slope in self.token_slopes),
        )

    def of_tokens(self, tokens: float) -> float:
        """Seconds of a number of tokens."""
        if not self.token_slopes:
            return 0.0
        place = min(bisect_right(self.token_nodes, tokens), len(self.token_slopes)) - 1
        return self._at_nodes[place] + self.token_slopes[place] * (tokens - self.token_nodes[place])
