"""How steps follow the pace of the machine that they run on.

A CPU of a virtual machine is not always equally fast: neighbours share its core and its caches. A
small piece of fixed work, timed beside the steps, tells its pace; here is found out by how much
steps follow it, so that steps of slow and of fast moments can be compared. Knows paces and times;
who measures the pace, and how, it does not know.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from workbench.step_profile import MeasuredStep

Array = NDArray[np.float64]
WINDOW_S = 1.0  # the pace is told by few pieces of work a second: one alone says little
FEWEST = 10  # windows
MOST = 3.0
SMALLEST_SPREAD = 0.005


@dataclass(frozen=True)
class MachinePace:
    """Steps take (pace / typical) ** sensitivity times as long as at the typical pace.

    Attributes:
        typical: Seconds of the fixed work at which prices hold; 0: the pace was not told.
        sensitivity: At least 0; 0: steps do not follow it.
    """

    typical: float = 0.0
    sensitivity: float = 0.0

    @property
    def is_known(self) -> bool:
        """Whether paces say anything of steps."""
        return self.typical > 0 and self.sensitivity > 0

    def slowdown(self, paces: Sequence[float]) -> float | None:
        """How many times as long as at the typical pace steps take on average; None: not known.

        Args:
            paces: Seconds of the fixed work while they ran.
        """
        if not self.is_known or not len(paces):
            return None
        return float(np.mean((np.asarray(paces) / self.typical) ** self.sensitivity))

    def slowdowns(self, paces: Sequence[float], seconds: float) -> list[float] | None:
        """The same for every second of a time; None: not known.

        Args:
            paces: Seconds of the fixed work, taken at even distances over the time.
            seconds: How long it was.
        """
        number = max(min(round(seconds), len(paces)), 1)
        parts = np.array_split(np.asarray(paces), number)
        found = [self.slowdown(part.tolist()) for part in parts]
        return None if None in found else [float(f"{factor:.5g}") for factor in found]

    def at_typical(self, step: MeasuredStep) -> MeasuredStep:
        """The step as it would have been at the typical pace."""
        if not self.is_known or not step.pace:
            return step
        factor = (step.pace / self.typical) ** self.sensitivity
        return replace(
            step, seconds=step.seconds / factor, host_s=step.host_s / factor, pace=self.typical
        )

    @classmethod
    def of(
        cls, recordings: Sequence[Sequence[MeasuredStep]], log_ratios: Sequence[Array]
    ) -> "MachinePace":
        """From recordings in the order of time.

        Args:
            recordings: Steps; those whose pace was not told say nothing.
            log_ratios: log(measured / predicted) of them, the predictions of one model.
        """
        windows = [
            window
            for steps, ratios in zip(recordings, log_ratios, strict=True)
            for window in _windows(steps, ratios)
        ]
        if len(windows) < FEWEST:
            return cls()
        paces, ratios = np.array(windows).T
        spread = paces.std()
        if spread < SMALLEST_SPREAD:
            return cls()
        slope = float(((paces - paces.mean()) * (ratios - ratios.mean())).mean() / spread**2)
        sensitivity = min(max(slope, 0.0), MOST)
        return cls(_typical(recordings, sensitivity), sensitivity)


def _windows(steps: Sequence[MeasuredStep], ratios: Array) -> list[tuple[float, float]]:
    """(log of the pace, log ratio) of each second of a recording, means of both."""
    found: dict[int, list[tuple[float, float]]] = {}
    passed = 0.0
    for step, ratio in zip(steps, ratios.tolist(), strict=True):
        passed += step.seconds
        if step.pace:
            found.setdefault(int(passed / WINDOW_S), []).append((math.log(step.pace), ratio))
    return [(fmean(p for p, _ in seen), fmean(r for _, r in seen)) for seen in found.values()]


def _typical(recordings: Sequence[Sequence[MeasuredStep]], sensitivity: float) -> float:
    """The pace at which the steps of the middle recording take as long as they do on average."""
    if not sensitivity:
        return 0.0
    means = []
    for steps in recordings:
        told = [(step.pace, step.seconds) for step in steps if step.pace]
        if told:
            paces, seconds = np.array(told).T
            # weights are the steps' times at an equal pace
            weights = seconds / paces**sensitivity
            means.append(float(np.average(paces**sensitivity, weights=weights)))
    return float(np.median(means) ** (1.0 / sensitivity))
