"""Steps of slow and of fast moments are compared, where the machine's pace was told."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.calibration import Calibration, fit
from simulator.calibration.jitter import Jitter
from simulator.calibration.machine_pace import MachinePace
from tests.simulator.calibration.worlds import designed, recorded, true_s
from workbench.step_profile import MeasuredStep, StepShape

TYPICAL, SENSITIVITY = 1e-3, 1.6
SHAPE = StepShape(8, 2000, [], 8)


def paced(steps: list[MeasuredStep], slow: float, noise: float = 0.02) -> list[MeasuredStep]:
    """The same steps on a machine that is `slow` times as slow for seconds at a time."""
    rng = np.random.default_rng(3)
    found, passed = [], 0.0
    for step in steps:
        passed += step.seconds
        pace = TYPICAL * (slow if int(passed) % 3 == 0 else 1.0)
        factor = (pace / TYPICAL) ** SENSITIVITY
        told = pace * float(np.exp(noise * rng.standard_normal()))
        times = {"seconds": step.seconds * factor, "host_s": step.host_s * factor}
        found.append(replace(step, **times, pace=told))
    return found


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    calm = Jitter(num_runs=6, run_sd=0.0)
    return fit(paced(designed(number=100) + recorded(6, 300, jitter=calm), slow=1.3))


def test_how_steps_follow_the_pace_is_found(calibration: Calibration) -> None:
    pace = calibration.pace
    assert pace.sensitivity == pytest.approx(SENSITIVITY, rel=0.1)
    for ratio in (1.0, 1.3):
        told = [TYPICAL * ratio]
        typical = calibration.mean_s(SHAPE) * pace.slowdown(told)
        assert typical == pytest.approx(true_s(SHAPE) * ratio**SENSITIVITY, rel=0.03)


def test_prices_are_those_of_the_time_in_which_they_were_measured(calibration: Calibration) -> None:
    # a third of the time is 1.3 times as slow
    slow = 1.3**SENSITIVITY
    share = (1 / 3) / slow
    mean = (share * slow + 2 / 3) / (share + 2 / 3)
    assert calibration.mean_s(SHAPE) == pytest.approx(true_s(SHAPE) * mean, rel=0.03)
    assert calibration.jitter.mean_factor == pytest.approx(1.0, abs=0.01)
    # whoever does not know the pace must reckon with both
    assert calibration.jitter.quantiles[-3] > 0.2


def test_every_second_has_its_slowdown() -> None:
    pace = MachinePace(typical=1e-3, sensitivity=2.0)
    paces = [1e-3] * 10 + [2e-3] * 10 + [1e-3] * 9
    assert pace.slowdowns(paces, 2.9) == pytest.approx([1.0, 4.0, 1.0])
    assert pace.slowdowns(paces[:3], 9.0) == [1.0] * 3
    assert pace.slowdowns([], 3.0) is None
    assert MachinePace().slowdowns(paces, 3.0) is None


def test_without_paces_nothing_is_known_and_nothing_changes() -> None:
    steps = designed() + recorded(runs=4, steps=100)
    found = fit(steps)
    assert found.pace == MachinePace()
    assert found.pace.slowdown([1e-3]) is None
    steady = fit(paced(steps, slow=1.0, noise=0.0))
    assert not steady.pace.is_known
    assert steady.typical_s(SHAPE) == pytest.approx(found.typical_s(SHAPE))


def test_steps_that_do_not_follow_the_pace_keep_their_times() -> None:
    rng = np.random.default_rng(1)
    steps = [replace(s, pace=1e-3 * rng.uniform(1, 2)) for s in recorded(runs=4, steps=200)]
    assert fit(steps).pace.sensitivity < 0.1


def test_a_pace_survives_its_file(calibration: Calibration, tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    calibration.save(file)
    again = Calibration.load(file)
    assert again.pace.slowdown([1.3e-3]) == pytest.approx(
        calibration.pace.slowdown([1.3e-3]), rel=1e-4
    )
    assert json.loads(file.read_text())["pace"]["sensitivity"] > 1
