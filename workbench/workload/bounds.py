"""Checks of the numbers a workload is built from: each failure is one line with value, limit, cure.

Knows numbers and their limits; knows nothing of files or requests.
"""

import math
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from workbench.errors import WorkloadError

MAX_TIME_S = 2**32  # neighbouring float64 numbers are 0.95 microseconds apart below it


def check_number(
    name: str,
    value: object,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> float:
    """Return `value` as a float, or raise a WorkloadError that names `name` and the limit."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise WorkloadError(f"{name} is {value!r}, which is not a number; give {name} a number")
    number = float(value)
    limit = ""
    if not math.isfinite(number):
        limit = "finite"
    elif at_least is not None and number < at_least:
        limit = f"at least {at_least:g}"
    elif above is not None and number <= above:
        limit = f"above {above:g}"
    elif at_most is not None and number > at_most:
        limit = f"at most {at_most:g}"
    if limit:
        raise WorkloadError(f"{name} is {value}, but it must be {limit}; change {name}")
    return number


def check_integer(
    name: str, value: object, *, at_least: int | None = None, at_most: int | None = None
) -> int:
    """Return `value` as an int, or raise a WorkloadError that names `name` and the limit."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise WorkloadError(f"{name} is {value!r}, which is not a whole number; give {name} one")
    check_number(name, value, at_least=at_least, at_most=at_most)
    return int(value)


def check_times(name: str, times: NDArray[np.float64], cure: str) -> None:
    """Raise a WorkloadError at a time [s] so late that a latency beside it would be lost."""
    wrong = ~(np.abs(times) <= MAX_TIME_S)
    if wrong.any():
        time = float(times[np.argmax(wrong)])
        raise WorkloadError(
            f"{name} {time:g} s is beyond {MAX_TIME_S} s, where times are no longer kept to the "
            f"microsecond: {cure}"
        )


def check_instance(name: str, value: object, kind: type) -> None:
    """Raise a WorkloadError unless `value` is a `kind` (a part of a workload put in wrongly)."""
    if not isinstance(value, kind):
        raise WorkloadError(
            f"{name} is a {type(value).__name__}, but it must be a {kind.__name__}; "
            f"set {name}._target_ to one"
        )
