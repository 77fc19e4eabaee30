"""Arrival processes: when requests (or sessions) come.

Each draws from the generator it is given and knows nothing of what arrives. Rates are per second,
times are seconds since the start of the run.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from workbench.workload.bounds import check_instance, check_integer, check_number
from workbench.workload.durations import ConstantDuration, Durations

FloatArray = NDArray[np.float64]


class Arrivals(ABC):
    """A process that says when each of n requests or sessions comes."""

    @abstractmethod
    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Arrival times, sorted, shape [n]; shorter if the rest waits for others to end."""

    def think_times(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Waits [s] between the end of one session and the next one's start; shape [n]."""
        return np.zeros(n)


class PoissonArrivals(Arrivals):
    """Independent exponential gaps."""

    def __init__(self, rate: float) -> None:
        self.rate = check_number("rate", rate, above=0)

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        return np.cumsum(rng.exponential(1 / self.rate, n))


class GammaArrivals(Arrivals):
    """Independent Gamma gaps with shape = `burstiness` and mean 1 / `rate`.

    As in vLLM's serving benchmark: 1 is Poisson, less is burstier, more is more even. The
    coefficient of variation of the gaps is 1 / sqrt(burstiness).
    """

    def __init__(self, rate: float, burstiness: float = 1.0) -> None:
        self.rate = check_number("rate", rate, above=0)
        self.burstiness = check_number("burstiness", burstiness, above=0)

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        return np.cumsum(rng.gamma(self.burstiness, 1 / (self.rate * self.burstiness), n))


class ConstantArrivals(Arrivals):
    """One arrival every 1 / `rate` seconds, the first at 0."""

    def __init__(self, rate: float) -> None:
        self.rate = check_number("rate", rate, above=0)

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        return np.arange(n) / self.rate


class BatchArrivals(Arrivals):
    """All at one time: an offline batch."""

    def __init__(self, time: float = 0.0) -> None:
        self.time = check_number("time", time, at_least=0)

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        return np.full(n, self.time)


class RampArrivals(Arrivals):
    """A Poisson process whose rate goes linearly from `start_rate` to `end_rate`.

    The ramp takes `duration` seconds; from then on the rate stays at `end_rate`.
    """

    def __init__(self, start_rate: float, end_rate: float, duration: float) -> None:
        self.start_rate = check_number("start_rate", start_rate, at_least=0)
        self.end_rate = check_number("end_rate", end_rate, above=0)
        self.duration = check_number("duration", duration, above=0)

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        # time change: unit-rate arrivals e, and the t whose expected count a t + s t^2 / 2 is e
        expected = np.cumsum(rng.exponential(1.0, n))
        a, b, ramp = self.start_rate, self.end_rate, self.duration
        slope = (b - a) / ramp
        in_ramp = (a + b) / 2 * ramp
        early = np.minimum(expected, in_ramp)
        # the root in the form that stays exact when the slope is small
        root = 2 * early / (a + np.sqrt(np.maximum(a * a + 2 * slope * early, 0.0)))
        return np.where(expected <= in_ramp, root, ramp + (expected - in_ramp) / b)


class OnOffArrivals(Arrivals):
    """A Poisson process that switches between two rates, beginning with the on phase.

    Phases last `on_duration` and `off_duration` seconds, or have these as means of exponential
    spans if `random_phases` (a Markov-modulated Poisson process of two states).
    """

    def __init__(
        self,
        on_rate: float,
        on_duration: float,
        off_duration: float,
        off_rate: float = 0.0,
        random_phases: bool = False,
    ) -> None:
        self.on_rate = check_number("on_rate", on_rate, above=0)
        self.on_duration = check_number("on_duration", on_duration, above=0)
        self.off_duration = check_number("off_duration", off_duration, at_least=0)
        self.off_rate = check_number("off_rate", off_rate, at_least=0)
        self.random_phases = bool(random_phases)

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        if n == 0:
            return np.zeros(0)
        expected = np.cumsum(rng.exponential(1.0, n))
        time, count = [np.zeros(1)], [np.zeros(1)]
        per_cycle = self.on_rate * self.on_duration + self.off_rate * self.off_duration
        while count[-1][-1] < expected[-1]:
            missing = float(expected[-1] - count[-1][-1])
            spans = self._phases(int(missing / per_cycle) + 2, rng)
            rates = np.tile((self.on_rate, self.off_rate), len(spans) // 2)
            time.append(time[-1][-1] + np.cumsum(spans))
            count.append(count[-1][-1] + np.cumsum(spans * rates))
        return np.interp(expected, np.concatenate(count), np.concatenate(time))

    def _phases(self, cycles: int, rng: np.random.Generator) -> FloatArray:
        spans: FloatArray = np.tile((self.on_duration, self.off_duration), cycles)
        if self.random_phases:
            spans *= rng.exponential(1.0, len(spans))
        return spans


class ClosedLoopArrivals(Arrivals):
    """A fixed number of users, each with one request (or session) at a time.

    User i starts at `i * stagger` seconds; when a request or session ends, its user thinks for
    `think_time` and begins the next one. The load follows the speed of the server.
    """

    def __init__(
        self, concurrency: int, think_time: Durations | None = None, stagger: float = 0.0
    ) -> None:
        self.concurrency = check_integer("concurrency", concurrency, at_least=1)
        self.think_time = ConstantDuration(0.0) if think_time is None else think_time
        check_instance("think_time", self.think_time, Durations)
        self.stagger = check_number("stagger", stagger, at_least=0)

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        return np.arange(min(n, self.concurrency), dtype=np.float64) * self.stagger

    def think_times(self, n: int, rng: np.random.Generator) -> FloatArray:
        return self.think_time.sample(n, rng)
