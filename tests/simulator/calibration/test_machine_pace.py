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

TYPICAL, SENSITIVITY, OF_PROMPTS = 1e-3, 1.2, 1.9
SHAPE = StepShape(8, 2000, [], 8)
MIXED = StepShape(8, 1600, [(100, 0)], 9)


def paced(steps: list[MeasuredStep], slow: float, noise: float = 0.02) -> list[MeasuredStep]:
    """The same steps on a machine that is `slow` times as slow for seconds at a time."""
    rng = np.random.default_rng(3)
    found, passed = [], 0.0
    for step in steps:
        passed += step.seconds
        pace = TYPICAL * (slow if int(passed) % 3 == 0 else 1.0)
        factor = (pace / TYPICAL) ** (OF_PROMPTS if step.shape.prefills else SENSITIVITY)
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
    assert pace.sensitivity_of_prompts == pytest.approx(OF_PROMPTS, rel=0.1)
    for ratio in (1.0, 1.3):
        for shape, power in ((SHAPE, SENSITIVITY), (MIXED, OF_PROMPTS)):
            found = calibration.mean_s(shape) * pace.slowdown(TYPICAL * ratio, bool(shape.prefills))
            assert found == pytest.approx(true_s(shape) * ratio**power, rel=0.04)


def test_prices_are_those_of_the_time_in_which_they_were_measured(calibration: Calibration) -> None:
    # a third of the time is 1.3 times as slow
    slow = 1.3**SENSITIVITY
    share = (1 / 3) / slow
    mean = (share * slow + 2 / 3) / (share + 2 / 3)
    assert calibration.mean_s(SHAPE) == pytest.approx(true_s(SHAPE) * mean, rel=0.04)
    for factor in (calibration.mean_factor, calibration.mean_factor_of_prompts):
        assert factor == pytest.approx(1.0, abs=0.02)
    # whoever does not know the pace must reckon with both
    assert calibration.jitter.quantiles[-3] > 0.2


def test_what_is_left_where_the_pace_is_known_scatters_less() -> None:
    calm = Jitter(num_runs=6, run_sd=0.0)
    runs = []
    for number, slow in enumerate((1.0, 1.3, 1.0, 1.3, 1.0, 1.3)):  # whole runs are slow as well
        for step in paced(recorded(1, 300, seed=number, jitter=calm), slow=1.3, noise=0.0):
            factor = slow ** (OF_PROMPTS if step.shape.prefills else SENSITIVITY)
            times = {"seconds": step.seconds * factor, "host_s": step.host_s * factor}
            runs.append(replace(step, **times, pace=step.pace * slow, source=f"run/{number}"))
    found = fit(designed(number=100) + runs)
    for jitter, wide in ((found.jitter, True), (found.jitter_at_pace, False)):
        assert (jitter.quantiles[-3] - jitter.quantiles[2] > 0.2) == wide
        assert jitter.known_run_sd is not None
        assert (jitter.known_run_sd > 0.1) == wide


def test_at_the_typical_pace_all_steps_together_take_as_long_as_they_did() -> None:
    calm = Jitter(num_runs=4, run_sd=0.0)
    runs = paced(recorded(4, 400, jitter=calm), slow=1.4, noise=0.0)
    pace = fit(runs).pace
    even = sum(pace.at_typical(step).seconds for step in runs)
    assert even == pytest.approx(sum(step.seconds for step in runs))


def test_a_kind_of_steps_that_says_too_little_follows_as_the_other_does() -> None:
    paces = 1e-3 * np.random.default_rng(5).uniform(1, 2, 60)
    for shape in (SHAPE, MIXED):
        run = [MeasuredStep(shape, 0.5, pace=float(pace)) for pace in paces]
        found = MachinePace.of([run], [1.5 * np.log(paces)])
        assert found.sensitivity_of_prompts == found.sensitivity == pytest.approx(1.5)


def test_every_second_has_its_pace() -> None:
    pace = MachinePace(1e-3, 2.0, 3.0)
    paces = [1e-3] * 10 + [2e-3] * 10 + [1e-3] * 9
    assert pace.each_second(paces, 2.9) == pytest.approx([1e-3, 2e-3, 1e-3])
    # decodes take their mean time
    assert pace.slowdown(pace.each_second([1e-3, 2e-3], 1.0)[0], False) == pytest.approx(
        2.5, rel=1e-3
    )
    assert pace.each_second(paces[:3], 9.0) == [1e-3] * 3
    assert pace.each_second([], 3.0) == []
    assert MachinePace().each_second(paces, 3.0) == []


def test_without_paces_nothing_is_known_and_nothing_changes() -> None:
    steps = designed() + recorded(runs=4, steps=100)
    found = fit(steps)
    assert found.pace == MachinePace()
    assert found.pace.slowdown(1e-3, has_prompts=False) == 1.0
    steady = fit(paced(steps, slow=1.0, noise=0.0))
    assert not steady.pace.is_known
    assert steady.typical_s(SHAPE) == pytest.approx(found.typical_s(SHAPE))


def test_steps_that_do_not_follow_the_pace_keep_their_times() -> None:
    rng = np.random.default_rng(1)
    steps = [replace(s, pace=1e-3 * rng.uniform(1, 2)) for s in recorded(runs=4, steps=200)]
    pace = fit(steps).pace
    assert max(pace.sensitivity, pace.sensitivity_of_prompts) < 0.1


def test_a_pace_survives_its_file(calibration: Calibration, tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    calibration.save(file)
    again = Calibration.load(file)
    for kind in (False, True):
        slow = calibration.pace.slowdown(1.3e-3, kind)
        assert again.pace.slowdown(1.3e-3, kind) == pytest.approx(slow, rel=1e-4)
    assert json.loads(file.read_text())["pace"]["sensitivity"] > 1
