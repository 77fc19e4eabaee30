"""What a configuration promises: upper limits on statistics of its latencies.

Knows names such as `ttft_p99` and how a run of requests is held against them. It knows no rate and
no search. A request that was not answered counts as one that waits for ever, so a percentile holds
only if enough requests were answered at all.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError
from workbench.metrics import SLO, RequestColumns

Floats = NDArray[np.float64]

LATENCIES = ("ttft", "tpot", "itl", "e2e", "queue")
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
ATTAINMENT = "attainment"
_NAME = re.compile(rf"({'|'.join(LATENCIES)})_({'|'.join(STATISTICS)})")


def is_objective(name: str) -> bool:
    """Whether a name such as `ttft_p99` or `attainment` is an objective."""
    return name == ATTAINMENT or _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Objectives:
    """Limits by name: seconds, except `attainment`, a share of requests within the limits of `slo`.

    Raises ConfigError for a name that is none, a limit that cannot be, or no limit at all.
    """

    limits: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.limits:
            raise ConfigError(
                "no objective: give at least one, in seconds: slo.ttft_p99=0.5 slo.tpot_p99=0.05"
            )
        for name, limit in self.limits.items():
            _check_limit(name, limit)

    def misses(self, statistics: Mapping[str, Any]) -> list[str]:
        """The objectives that are missed, worst first, as `ttft_p99`."""
        excess = {name: self._excess(name, statistics) for name in self.limits}
        return sorted((n for n in excess if excess[n] > 1), key=lambda n: (-excess[n], n))

    def _excess(self, name: str, statistics: Mapping[str, Any]) -> float:
        value, limit = statistics.get(name), self.limits[name]
        if name == ATTAINMENT:
            return math.inf if not value else limit / value
        if value is None:  # not finite in the record: some request waits for ever
            return math.inf
        return float(value) / limit

    def explain(self, name: str, statistics: Mapping[str, Any]) -> str:
        """One objective beside what was reached: `TTFT p99 612 ms > 450 ms`."""
        value, limit = statistics.get(name), self.limits[name]
        if name == ATTAINMENT:
            return f"{value or 0.0:.1%} of the requests within the SLO < {limit:.1%}"
        latency, _, statistic = name.partition("_")
        reached = "unanswered requests" if value is None else _time(value)
        return f"{latency.upper()} {statistic} {reached} > {_time(limit)}"


def _check_limit(name: str, limit: Any) -> None:
    if not is_objective(name):
        raise ConfigError(
            f"slo.{name}: no such objective; name LATENCY_STATISTIC with a latency of "
            f"{', '.join(LATENCIES)} and a statistic of {', '.join(STATISTICS)}, or {ATTAINMENT}"
        )
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise ConfigError(f"slo.{name}={limit}: expected a number")
    if name == ATTAINMENT and not 0 < limit <= 1:
        raise ConfigError(f"slo.{name}={limit} must be a share above 0 and at most 1: 0.99 is 99 %")
    if not 0 < limit < math.inf:
        raise ConfigError(f"slo.{name}={limit} must be > 0 s and finite")


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def statistics(requests: RequestColumns, window: NDArray[np.bool_], slo: SLO) -> dict[str, Any]:
    """Every statistic that an objective can name, of the requests in the window.

    None stands for infinity: so many requests were not answered that the statistic is in them.
    `window`: mask of shape (requests,).
    """
    served = requests.completed[window]
    out: dict[str, Any] = {}
    for name in LATENCIES:
        values = _of_window(requests, name, window)
        missing = int((~served).sum()) if name != "queue" else int(np.isnan(values).sum())
        finite = np.sort(values[~np.isnan(values)])
        for statistic in STATISTICS:
            out[f"{name}_{statistic}"] = _statistic(finite, missing, statistic)
    met = slo.met(requests)[window]
    out[ATTAINMENT] = float(met.mean()) if len(met) else 0.0
    return out


def _of_window(requests: RequestColumns, name: str, window: NDArray[np.bool_]) -> Floats:
    """The latencies of the completed requests of the window; of ITL every gap."""
    if name == "itl":
        counts = np.diff(requests.itl_offsets)
        return requests.itl_s[np.repeat(window & requests.completed, counts)]
    values: Floats = getattr(requests, f"{name}_s")[window]
    return values if name == "queue" else np.where(requests.completed[window], values, np.nan)


def _statistic(ordered: Floats, missing: int, name: str) -> float | None:
    """A statistic of sorted values and so many infinite ones; None if it is infinite."""
    count = len(ordered) + missing
    if count == 0:
        return 0.0  # nobody has this latency: answers of one token have no gaps
    if name == "mean":
        return None if missing else float(ordered.mean())
    rank = (100 if name == "max" else int(name[1:])) / 100 * (count - 1)
    low, share = int(rank), rank - int(rank)
    if low + (share > 0) >= len(ordered):
        return None
    value = float(ordered[low])
    return value + (float(ordered[low + 1]) - value) * share if share else value
