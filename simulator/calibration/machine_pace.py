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
SMALLEST_POWER = 0.01
ROUNDS = 8


@dataclass(frozen=True)
class MachinePace:
    """Steps take (pace / typical) ** sensitivity times as long as at the typical pace.

    Steps with prompts compute, steps that only decode wait for memory: a neighbour on the same core
    slows the two down by different amounts.

    Attributes:
        typical: Seconds of the fixed work at which prices hold; 0: the pace was not told.
        sensitivity: Of steps that only decode, at least 0; 0: they do not follow the pace.
        sensitivity_of_prompts: Of steps with prompts.
    """

    typical: float = 0.0
    sensitivity: float = 0.0
    sensitivity_of_prompts: float = 0.0

    @property
    def is_known(self) -> bool:
        """Whether paces say anything of steps."""
        return self.typical > 0 and max(self.sensitivity, self.sensitivity_of_prompts) > 0

    def slowdown(self, pace: float, has_prompts: bool) -> float:
        """How many times as long as at the typical pace a step takes; 1 where that is not known.

        Args:
            pace: Seconds of the fixed work meanwhile; 0: not told.
            has_prompts: Whether there is a prompt in the step.
        """
        if not self.is_known or not pace:
            return 1.0
        power = self.sensitivity_of_prompts if has_prompts else self.sensitivity
        return float((pace / self.typical) ** power)

    def each_second(self, paces: Sequence[float], seconds: float) -> list[float]:
        """The pace in every second of a time, in which steps that only decode take their mean time.

        Empty where nothing is known.

        Args:
            paces: Seconds of the fixed work, taken at even distances over the time.
            seconds: How long it was.
        """
        if not self.is_known or not len(paces):
            return []
        number = max(min(round(seconds), len(paces)), 1)
        power = max(self.sensitivity, SMALLEST_POWER)
        parts = np.array_split(np.asarray(paces), number)
        return [float(f"{np.mean(part**power) ** (1.0 / power):.5g}") for part in parts]

    def at_typical(self, step: MeasuredStep) -> MeasuredStep:
        """The step as it would have been at the typical pace."""
        if not self.is_known or not step.pace:
            return step
        factor = self.slowdown(step.pace, bool(step.shape.prefills))
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
        both = list(zip(recordings, log_ratios, strict=True))
        of_decodes, of_prompts = (
            _sensitivity([w for steps, ratios in both for w in _windows(steps, ratios, kind)])
            for kind in (False, True)
        )
        # where one kind says too little it follows as the other does
        known = [power for power in (of_decodes, of_prompts) if power is not None]
        if not any(known):
            return cls()
        found = cls(
            1.0,
            known[0] if of_decodes is None else of_decodes,
            known[-1] if of_prompts is None else of_prompts,
        )
        return replace(found, typical=_typical([s for run in recordings for s in run], found))


def _sensitivity(windows: Sequence[tuple[float, float]]) -> float | None:
    """By how much the second of two logarithms follows the first; None: too little is known."""
    if len(windows) < FEWEST:
        return None
    paces, ratios = np.array(windows).T
    spread = paces.std()
    if spread < SMALLEST_SPREAD:
        return None
    slope = float(((paces - paces.mean()) * (ratios - ratios.mean())).mean() / spread**2)
    return min(max(slope, 0.0), MOST)


def _windows(
    steps: Sequence[MeasuredStep], ratios: Array, has_prompts: bool
) -> list[tuple[float, float]]:
    """(log of the pace, log ratio) of each second of a recording, means over steps of a kind."""
    found: dict[int, list[tuple[float, float]]] = {}
    passed = 0.0
    for step, ratio in zip(steps, ratios.tolist(), strict=True):
        passed += step.seconds
        if step.pace and bool(step.shape.prefills) == has_prompts:
            found.setdefault(int(passed / WINDOW_S), []).append((math.log(step.pace), ratio))
    return [(fmean(p for p, _ in seen), fmean(r for _, r in seen)) for seen in found.values()]


def _typical(steps: Sequence[MeasuredStep], following: MachinePace) -> float:
    """The pace at which all steps together would have taken as long as they did.

    Args:
        steps: Those whose pace was not told say nothing.
        following: How they follow the pace; its typical pace is 1.
    """
    told = [step for step in steps if step.pace]
    seconds, paces = np.array([(step.seconds, step.pace) for step in told]).T
    with_prompts = np.array([bool(step.shape.prefills) for step in told])
    powers = np.where(with_prompts, following.sensitivity_of_prompts, following.sensitivity)
    share = seconds / seconds.sum()
    log_pace = float(share @ np.log(paces))
    for _ in range(ROUNDS):  # Newton's, on a convex function
        parts = share * np.exp(powers * (log_pace - np.log(paces)))
        log_pace -= math.log(parts.sum()) * parts.sum() / float(parts @ powers)
    return math.exp(log_pace)
