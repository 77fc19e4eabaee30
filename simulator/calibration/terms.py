"""What a step's time is a sum of: a few counts of its shape, each with a price of at least 0.

Knows which counts there are and how prices become seconds. It does not know where prices come from.

The time of matrix products is no straight line in tokens (tiles, caches, memory bound and then
compute bound), but it never falls: `tokens` is piecewise linear between nodes, each piece with a
slope of its own. So is `decode_padding`: a kernel pads rows up to some size and from there on makes
two groups of them.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from workbench.step_profile import StepShape

Array = NDArray[np.float64]
COUNTS = (
    "step",  # 1
    "decoding",  # 1 where a row decodes: attention of decodes is a pass of its own
    "mixed",  # 1 where there are chunks as well
    "decodes",  # rows of one token
    "decode_context",  # keys that they read
    "distinct_context",  # keys that they read, those that rows share counted once
    "chunks",  # rows of several tokens
    "chunk_pairs",  # pairs of a query and a key in them
    "chunk_context",  # keys that they read
    "samples",  # rows of logits
    "swap_blocks",  # KV blocks copied to or from the host
)
CURVED = (
    "tokens",  # of the step
    "decode_padding",  # keys that decodes would read besides if each were as long as the longest
    "cold",  # prompt tokens of the step before one that only decodes: caches hold little
)
LEVELS_OFF = ("cold",)  # behind the largest measured value: caches can be no emptier


# of a curve's nodes: the first, and how many times the one before the next is
NODES = {"tokens": (1.0, 2.0), "decode_padding": (256.0, 4.0), "cold": (16.0, 4.0)}


def counts(shape: StepShape) -> tuple[float, ...]:
    """The values of `COUNTS`."""
    pairs, keys = 0.0, 0
    for query, context in shape.prefills:
        pairs += query * (context + 0.5 * (query + 1))
        keys += query + context
    return (
        1.0,
        float(shape.num_decodes > 0),
        float(shape.num_decodes > 0 and len(shape.prefills) > 0),
        float(shape.num_decodes),
        float(shape.decode_context),
        distinct_context(shape),
        float(len(shape.prefills)),
        pairs,
        float(keys),
        float(shape.num_samples),
        float(shape.num_swap_blocks),
    )


def distinct_context(shape: StepShape) -> float:
    """Keys that decodes read, those that rows share counted once.

    Prompt chunks share as well: decodes get their part of what is shared, by the keys that both
    read. One row's worth of keys is distinct, whatever others share.
    """
    keys = shape.decode_context
    if not shape.shared_context or shape.num_decodes < 2:
        return float(keys)
    of_chunks = sum(query + context for query, context in shape.prefills)
    shared = shape.shared_context * keys / (keys + of_chunks)
    return max(keys - shared, keys / shape.num_decodes)


def curved(shape: StepShape) -> tuple[float, ...]:
    """The values of `CURVED`."""
    padding = max(shape.num_decodes * shape.longest_decode - shape.decode_context, 0)
    before = 0 if shape.prefills else shape.prefill_tokens_before
    return float(shape.num_tokens), float(padding), float(before)


def count_matrix(shapes: Sequence[StepShape]) -> Array:
    """[steps, COUNTS]."""
    return np.array([counts(shape) for shape in shapes], dtype=np.float64).reshape(-1, len(COUNTS))


def curved_matrix(shapes: Sequence[StepShape]) -> Array:
    """[steps, CURVED]."""
    return np.array([curved(shape) for shape in shapes], dtype=np.float64).reshape(-1, len(CURVED))


def curve_nodes(name: str, values: Array) -> tuple[float, ...]:
    """Nodes of a curve of `CURVED`, to the largest of the measured values; () for all 0.

    0 and those powers that have measured values between them.
    """
    found = np.unique(values[values > 0])
    if not len(found):
        return ()
    nodes = [0.0]
    power, factor = NODES[name]
    while power < found[-1]:
        if ((found > nodes[-1]) & (found <= power)).any():
            nodes.append(power)
        power *= factor
    return (*nodes, float(found[-1]))


def piece_matrix(values: Array, nodes: Sequence[float]) -> Array:
    """[steps, pieces]: how much of each value lies between two nodes; the last piece is open."""
    ends = [*nodes[1:-1], np.inf] if len(nodes) > 1 else []
    pieces = [np.clip(values, low, high) - low for low, high in zip(nodes[:-1], ends, strict=True)]
    return np.stack(pieces, axis=1) if pieces else np.zeros((len(values), 0))


@dataclass(frozen=True)
class Curve:
    """A piecewise linear price that never falls.

    Attributes:
        nodes: Where the slope changes, from 0, ascending; at least two.
        slopes: Seconds of one more, between two nodes; the last slope goes on behind the end.
    """

    nodes: tuple[float, ...]
    slopes: tuple[float, ...]
    _at_nodes: list[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pieces = zip(pairwise(self.nodes), self.slopes, strict=True)
        values = accumulate((slope * (high - low) for (low, high), slope in pieces), initial=0.0)
        object.__setattr__(self, "_at_nodes", list(values))

    def __call__(self, value: float) -> float:
        """Seconds of a value."""
        place = min(bisect_right(self.nodes, value), len(self.slopes)) - 1
        return self._at_nodes[place] + self.slopes[place] * (value - self.nodes[place])

    def scaled(self, factor: float) -> "Curve":
        """Prices that many times as high."""
        return Curve(self.nodes, tuple(factor * slope for slope in self.slopes))


@dataclass(frozen=True)
class Prices:
    """Prices of a step's parts.

    Attributes:
        seconds: Of one of each of `COUNTS`; those that are left out cost nothing.
        curves: Of `CURVED`; those that are left out cost nothing.
    """

    seconds: Mapping[str, float]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    _prices: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _curves: tuple[tuple[int, Curve], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = [(i, self.curves[name]) for i, name in enumerate(CURVED) if name in self.curves]
        object.__setattr__(self, "_curves", tuple(given))
        object.__setattr__(self, "_prices", tuple(self.seconds.get(n, 0.0) for n in COUNTS))

    def __call__(self, shape: StepShape) -> float:
        """Seconds of a step."""
        total = 0.0
        for price, count in zip(self._prices, counts(shape), strict=True):
            total += price * count
        if self._curves:
            values = curved(shape)
            for place, curve in self._curves:
                total += curve(values[place])
        return total

    def scaled(self, factor: float) -> "Prices":
        """Prices that many times as high."""
        return Prices(
            {name: factor * price for name, price in self.seconds.items()},
            {name: curve.scaled(factor) for name, curve in self.curves.items()},
        )
