"""Prices from a calibration's file, and for whom they are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.calibration import Calibration, fit
from simulator.calibration.jitter import Jitter
from simulator.calibration.machine_pace import MachinePace
from simulator.calibration.terms import Curve
from simulator.cost_models.calibrated import CalibratedCostModel
from simulator.cost_models.uncertain import Spread, UncertainCostModel
from simulator.hardware import HardwareConfig
from simulator.model_config import ModelConfig
from tests.simulator.calibration.worlds import designed, recorded, true_s
from tests.simulator.small_runs import simulate
from workbench.errors import ConfigError, CostModelError
from workbench.step_profile import StepShape
from workbench.workload.base import WorkloadRequest

SHAPE = StepShape(8, 1600, [(100, 0)], 9)
FACTS = {"model": {"name": "toy", "hidden_size": 4096}, "device_name": "NVIDIA H100 80GB HBM3"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "calibration.json"
    fit(designed() + recorded(runs=4, steps=150), FACTS).save(path)
    return path


def test_a_machine_may_be_slower_in_some_seconds(file: Path) -> None:
    plain = CalibratedCostModel(str(file))
    model = CalibratedCostModel(str(file), slowdown=[2.0, 3.0, 2.4])
    assert model.wants_time
    assert not model.is_repeatable
    assert not plain.wants_time
    for wrapped in (model, UncertainCostModel(model, Spread(), seed=0)):
        for now, factor in ((0.0, 2.0), (0.99, 2.0), (1.0, 3.0), (2.5, 2.4), (70.0, 2.4)):
            wrapped.tell_time(now)
            assert wrapped.step_time(SHAPE) == pytest.approx(factor * plain.step_time(SHAPE))
            assert model.host_time(SHAPE) == pytest.approx(factor * plain.host_time(SHAPE))
    for wrong in ([1.0, 0.0], [], 0.0):
        with pytest.raises(ConfigError, match=r"cost_model.slowdown"):
            CalibratedCostModel(str(file), slowdown=wrong)


def test_a_pace_says_how_much_slower_steps_are(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cost_model.pace=0.002, but .* does not tell"):
        CalibratedCostModel(str(file), pace=2e-3)
    told = tmp_path / "told.json"
    replace(Calibration.load(file), pace=MachinePace(1e-3, 1.0, 2.0)).save(told)
    plain = CalibratedCostModel(str(told))
    decodes = StepShape(8, 1600, [], 8)
    model = CalibratedCostModel(str(told), slowdown=1.5, pace=[1e-3, 2e-3])
    for now, of_decodes, of_prompts in ((0.0, 1.5, 1.5), (1.0, 3.0, 6.0), (9.0, 3.0, 6.0)):
        model.tell_time(now)
        for shape, factor in ((decodes, of_decodes), (SHAPE, of_prompts)):
            assert model.step_time(shape) == pytest.approx(factor * plain.step_time(shape))
            assert model.host_time(shape) == pytest.approx(factor * plain.host_time(shape))
    for wrong in ([], 0.0, [-1.0]):
        with pytest.raises(ConfigError, match=r"cost_model.pace"):
            CalibratedCostModel(str(told), pace=wrong)


def test_a_simulation_tells_its_time(file: Path) -> None:
    def starts(**settings: Any) -> list[float]:
        model = CalibratedCostModel(str(file), **settings)
        requests = [WorkloadRequest("a", 0.0, 20, 480)]
        return simulate(requests, model).steps.start_s.tolist()

    same, slower = starts(slowdown=[1.0, 1.0]), starts(slowdown=[1.0, 2.0])
    assert same == pytest.approx(starts())
    count = sum(at < 1.0 for at in same)
    assert slower[:count] == same[:count]
    assert slower[count + 5] - slower[count + 4] == pytest.approx(
        2 * (same[count + 5] - same[count + 4]), rel=0.01
    )


def test_steps_take_their_mean_time(file: Path) -> None:
    model = CalibratedCostModel(str(file))
    factor = Calibration.load(file).mean_factor_of_prompts
    assert model.step_time(SHAPE) == pytest.approx(true_s(SHAPE) * factor, rel=0.05)
    assert 0 < model.host_time(SHAPE) < model.step_time(SHAPE)
    slow = CalibratedCostModel(str(file), slowdown=2.0)
    assert slow.step_time(SHAPE) == pytest.approx(2 * model.step_time(SHAPE))
    assert slow.host_time(SHAPE) == pytest.approx(2 * model.host_time(SHAPE))


def test_with_noise_steps_scatter_around_their_mean(file: Path) -> None:
    plain = CalibratedCostModel(str(file))
    scattered = CalibratedCostModel(str(file), noise=3)
    assert not scattered.is_repeatable
    factors = np.array([scattered.step_time(SHAPE) for _ in range(20_000)]) / plain.step_time(SHAPE)
    assert factors.mean() == pytest.approx(1.0, abs=0.01)
    assert factors.std() > 0.02
    assert scattered.host_time(SHAPE) == pytest.approx(factors[-1] * plain.host_time(SHAPE))
    again = CalibratedCostModel(str(file), noise=3)
    assert again.step_time(SHAPE) == factors[0] * plain.step_time(SHAPE)
    ranks = [scattered.group_step_time([SHAPE] * 4) for _ in range(20_000)]
    assert np.mean(ranks) == pytest.approx(plain.step_time(SHAPE), rel=0.01)
    replicas = [scattered.for_replica(number).step_time(SHAPE) for number in (0, 1)]
    assert replicas[0] != replicas[1]
    assert plain.for_replica(1) is plain
    with pytest.raises(ConfigError, match=r"cost_model.noise=-1"):
        CalibratedCostModel(str(file), noise=-1)


def test_where_the_pace_is_known_only_the_rest_is_noise(file: Path, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    calibration = Calibration.load(file)
    calm = replace(calibration, pace=MachinePace(1e-3, 1.0, 1.0), jitter_at_pace=Jitter())
    calm.save(told)
    known = CalibratedCostModel(str(told), pace=2e-3, noise=0)
    unknown = CalibratedCostModel(str(told), noise=0)
    assert len({known.step_time(SHAPE) for _ in range(9)}) == 1
    assert len({unknown.step_time(SHAPE) for _ in range(9)}) > 1


def test_the_longest_decode_is_asked_for_where_it_has_a_price(file: Path) -> None:
    assert not CalibratedCostModel(str(file)).wants_longest_decode
    path = file.with_name("padded.json")
    calibration = Calibration.load(file)
    curves = {**calibration.device.curves, "decode_padding": Curve((0.0, 2000.0), (1e-6,))}
    device = replace(calibration.device, curves=curves)
    largest = {**calibration.largest, "decode_padding": 2000.0}
    replace(calibration, device=device, largest=largest).save(path)
    model = CalibratedCostModel(str(path))
    assert model.wants_longest_decode
    even, uneven = StepShape(4, 800, [], 4), StepShape(4, 800, [], 4, longest_decode=500)
    factor = calibration.mean_factor
    assert model.step_time(uneven) - model.step_time(even) == pytest.approx(1.2e-3 * factor)


def test_what_was_not_measured_is_extrapolated_or_refused(file: Path) -> None:
    model = CalibratedCostModel(str(file))
    assert not model.is_extrapolated(SHAPE)
    assert model.is_extrapolated(StepShape(20, 4000, [], 20))
    with pytest.raises(CostModelError, match=r"12\.5 times beyond .* calibrate with this run"):
        model.step_time(StepShape(200, 40_000, [], 200))


def test_another_model_or_gpu_is_refused(
    file: Path, llama: ModelConfig, hardware: Callable[[str], HardwareConfig]
) -> None:
    CalibratedCostModel(str(file), model=llama, hardware=hardware("h100"))
    with pytest.raises(ConfigError, match="NVIDIA H100"):
        CalibratedCostModel(str(file), model=llama, hardware=hardware("a100"))
    path = file.with_name("other.json")
    calibration = Calibration.load(file)
    other = {**calibration.facts, "model": {"name": "toy", "hidden_size": 64}}
    fit(designed(), other).save(path)
    with pytest.raises(ConfigError, match=r"hidden_size=64, and .* has 4096"):
        CalibratedCostModel(str(path), model=llama)
    assert CalibratedCostModel(str(path), allow_mismatch=True, model=llama).step_time(SHAPE) > 0
