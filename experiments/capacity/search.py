"""The highest rate that passes, by doubling and bisection.

Knows a question with the answer yes or no at a rate, and nothing of what is asked. The answers are
expected to turn from yes to no once as the rate grows. If they turn more often, the search comes to
one of the turns; a rate above it that was tried and passes is told.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workbench.errors import ConfigError

FOUND, NONE, UNBOUNDED = "found", "none", "unbounded"
GROWTH = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to.

    Attributes:
        status: "found"; "none": not even the lowest rate passes; "unbounded": the highest does.
        rate: The highest rate that passed, none above it and below `above` unknown by more than
            the tolerance; 0 with "none".
        above: The lowest rate above it that was tried and failed; None with "unbounded".
        passes_again: Rates above `above` that passed all the same, in order.
    """

    status: str
    rate: float
    above: float | None
    passes_again: tuple[float, ...] = ()


def find_capacity(
    passes: Callable[[float], bool],
    start: float,
    *,
    lowest: float,
    highest: float,
    tolerance: float,
    beyond: Sequence[float] = (),
) -> Found:
    """Searches between `lowest` and `highest`, from `start` on.

    Args:
        passes: Whether a rate passes; asked once a rate.
        start: The first rate; between the two limits.
        lowest: A rate at which nothing disturbs a request; if it fails, every rate does.
        highest: Where to give up.
        tolerance: `above` is at most (1 + tolerance) times `rate`.
        beyond: Factors above 1; these multiples of `above` are tried as well, for answers that
            turn back.

    Raises:
        ConfigError: Limits, start, tolerance or factors that contradict each other.
    """
    _check(start, lowest, highest, tolerance, beyond)
    known: dict[float, bool] = {}

    def ask(rate: float) -> bool:
        if rate not in known:
            known[rate] = passes(rate)
        return known[rate]

    bracket = _upward(ask, start, highest) if ask(start) else _downward(ask, start, lowest)
    if bracket is None:
        return Found(status=NONE, rate=0.0, above=min(known))
    if bracket[1] is None:
        return Found(status=UNBOUNDED, rate=bracket[0], above=None)
    low, high = _bisect(ask, bracket[0], bracket[1], tolerance)
    for factor in beyond:
        ask(high * factor)
    again = sorted(rate for rate, passed in known.items() if passed and rate > high)
    return Found(status=FOUND, rate=low, above=high, passes_again=tuple(again))


def _bisect(
    ask: Callable[[float], bool], low: float, high: float, tolerance: float
) -> tuple[float, float]:
    """Narrows a rate that passes and one that fails down to the tolerance."""
    while high > low * (1 + tolerance):
        middle = math.sqrt(low) * math.sqrt(high)  # of the ratio: rates differ by factors
        if not low < middle < high:
            break  # no number lies between them
        low, high = (middle, high) if ask(middle) else (low, middle)
    return low, high


def _upward(ask: Callable[[float], bool], low: float, highest: float) -> tuple[float, float | None]:
    """Doubles a rate that passes until one fails: (passes, fails), or (highest, None)."""
    while low < highest:
        rate = min(low * GROWTH, highest)
        if not ask(rate):
            return low, rate
        low = rate
    return low, None


def _downward(
    ask: Callable[[float], bool], high: float, lowest: float
) -> tuple[float, float] | None:
    """Halves a rate that fails until one passes; None if the lowest fails, which is asked first."""
    if not ask(lowest):
        return None
    while high / GROWTH > lowest:
        rate = high / GROWTH
        if ask(rate):
            return rate, high
        high = rate
    return lowest, high


def _check(
    start: float, lowest: float, highest: float, tolerance: float, beyond: Sequence[float]
) -> None:
    if not 0 < lowest <= start <= highest < math.inf:
        raise ConfigError(
            f"start={start} must lie between lowest={lowest} and highest={highest}, all of them "
            "above 0 and finite"
        )
    if not 0 < tolerance < 1:
        raise ConfigError(f"tolerance={tolerance} must be above 0 and below 1: 0.02 is 2 %")
    if any(not 1 < factor < math.inf for factor in beyond):
        raise ConfigError(f"beyond={list(beyond)} must be factors above 1")
