"""When requests are sent, from the flags of a command line.

Knows rates, burstiness and ramps. Knows no request. The processes themselves are those of
`workbench.workload.arrivals`; the ramp over requests is that of vLLM's serving benchmark.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError
from workbench.workload.arrivals import Arrivals, BatchArrivals, GammaArrivals

RAMPS = ("linear", "exponential")


class RampOverRequests(Arrivals):
    """Gamma gaps whose rate goes from `start_rate` at the first to `end_rate` at the last request.

    "linear" adds the same to the rate from one request to the next, "exponential" multiplies it by
    the same. Rates are per second.
    """

    def __init__(
        self, start_rate: float, end_rate: float, shape: str = "linear", burstiness: float = 1.0
    ) -> None:
        self.start_rate = start_rate
        self.end_rate = end_rate
        self.shape = shape
        self.burstiness = burstiness

    def rates(self, n: int) -> NDArray[np.float64]:
        """The rate at which each of n requests comes, shape [n]."""
        progress = np.arange(n) / max(n - 1, 1)
        if self.shape == "exponential":
            return self.start_rate * (self.end_rate / self.start_rate) ** progress
        return self.start_rate + (self.end_rate - self.start_rate) * progress

    def times(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        # a ramp from 0 would wait for ever for its first request
        rates = np.maximum(self.rates(n), max(self.end_rate, self.start_rate) * 1e-3)
        return np.cumsum(rng.gamma(self.burstiness, 1 / (rates * self.burstiness)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalSettings:
    """When to send.

    Attributes:
        request_rate: A second; infinite: as soon as possible.
        burstiness: Shape of the Gamma gaps: 1 is Poisson, less is burstier, more is more even.
        ramp: "linear" or "exponential": the rate goes from `ramp_start` to `ramp_end` over the
            requests, and `request_rate` is not used.
    """

    request_rate: float = math.inf
    burstiness: float = 1.0
    ramp: str | None = None
    ramp_start: float | None = None
    ramp_end: float | None = None

    def __post_init__(self) -> None:
        if not self.request_rate > 0:
            raise ConfigError(f"--request-rate {self.request_rate:g} must be above 0, or inf")
        if not 0 < self.burstiness < math.inf:
            raise ConfigError(f"--burstiness {self.burstiness:g} must be above 0 and finite")
        if self.ramp is None:
            if self.ramp_start is not None or self.ramp_end is not None:
                raise ConfigError("a ramp needs its shape: add --ramp-up-strategy linear")
            return
        if self.ramp not in RAMPS:
            raise ConfigError(f"--ramp-up-strategy {self.ramp}: use {' or '.join(RAMPS)}")
        self._check_ramp()

    def _check_ramp(self) -> None:
        start, end = self.ramp_start, self.ramp_end
        if start is None or end is None:
            raise ConfigError("a ramp needs --ramp-up-start-rps and --ramp-up-end-rps")
        if not (0 <= start < math.inf and 0 < end < math.inf):
            raise ConfigError(
                f"a ramp from {start:g} to {end:g} requests a second: both must be finite, the"
                " first at least 0, the second above 0"
            )
        if self.ramp == "exponential" and start == 0:
            raise ConfigError("an exponential ramp cannot begin at 0: --ramp-up-start-rps 0.1")
        if not math.isinf(self.request_rate):
            raise ConfigError(
                "--request-rate and --ramp-up-strategy both say when to send: use one"
            )

    @property
    def is_unlimited(self) -> bool:
        """Whether requests are sent as soon as there is room for them."""
        return self.ramp is None and math.isinf(self.request_rate)

    def process(self) -> Arrivals:
        """The arrival process; all at once if there is no limit."""
        if self.ramp is not None:
            assert self.ramp_start is not None
            assert self.ramp_end is not None
            return RampOverRequests(self.ramp_start, self.ramp_end, self.ramp, self.burstiness)
        if self.is_unlimited:
            return BatchArrivals()
        return GammaArrivals(self.request_rate, self.burstiness)

    def enough_for(self, duration_s: float) -> int:
        """A number of requests whose arrivals surely take longer than this many seconds."""
        if self.is_unlimited:
            return 1_000_000
        rate = self.request_rate
        if self.ramp_start is not None and self.ramp_end is not None:
            rate = max(self.ramp_start, self.ramp_end)
        expected = rate * duration_s
        return math.ceil(expected + 8 * math.sqrt(expected / min(self.burstiness, 1.0)) + 16)
