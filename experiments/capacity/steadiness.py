"""Whether a server kept up with its arrivals, or its backlog grew as long as they came.

Knows arrivals and finishes. A finite run always ends, so its latencies alone do not tell a loaded
server from one that falls behind: with a loose limit, a short run of an overloaded server passes.
What tells them apart is the number of unfinished requests over time. In a steady state it
fluctuates about a mean; under overload it grows by the share of the arrivals that is not served.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NOISE = 3.0  # standard deviations of the difference of two means that are taken for chance
FEW = 3.0  # requests more or less are chance in any case


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Unfinished requests during the arrivals.

    Attributes:
        early: Their mean over the second quarter of the time in which requests arrive.
        late: Their mean over the last quarter.
        growth: Share of the arrivals in between that was added to them.
        noise: What `growth` may be by chance.
    """

    early: float
    late: float
    growth: float
    noise: float

    def grows(self, limit: float) -> bool:
        """Whether more than `limit` of the arrivals was left undone, and not by chance."""
        return self.growth > max(limit, self.noise)


def backlog(arrivals: Floats, finishes: Floats) -> Backlog:
    """The backlog of requests with these times, both of shape (requests,); NaN never finished.

    The noise is that of independent requests in service: with L of them on average, a mean over a
    quarter of n arrivals is off by L sqrt(8 / n), since a request stays for L arrivals.
    """
    count = len(arrivals)
    start, end = (float(arrivals.min()), float(arrivals.max())) if count else (0.0, 0.0)
    if end <= start:
        # all at one time: nothing can keep up with that, unless it is a request or two
        return Backlog(early=0.0, late=float(count), growth=float(count > 2), noise=0.0)
    quarter = (end - start) / 4
    early = _mean_present(arrivals, finishes, start + quarter, start + 2 * quarter)
    late = _mean_present(arrivals, finishes, start + 3 * quarter, end)
    between = max(count / 2, 1.0)  # arrivals from the middle of one quarter to that of the other
    noise = max(NOISE * early * math.sqrt(2 * min(8 / count, 1.0)), FEW) / between
    return Backlog(early=early, late=late, growth=(late - early) / between, noise=noise)


def _mean_present(arrivals: Floats, finishes: Floats, start: float, end: float) -> float:
    """Mean number of requests between their arrival and their finish, over a span of time."""
    gone = np.where(np.isnan(finishes), np.inf, finishes)
    present = np.clip(np.minimum(gone, end) - np.maximum(arrivals, start), 0.0, None)
    return float(present.sum() / (end - start))
