"""Errors drawn for a run: reproducible, of the stated size, and bands that cover as stated."""

import math

import numpy as np
import pytest

from simulator.calibration import Calibration, fit
from simulator.calibration.jitter import Jitter
from simulator.calibration.terms import Prices
from simulator.cost_models.base import CostModel
from simulator.cost_models.linear import LinearCostModel
from simulator.cost_models.uncertain import Spread, UncertainCostModel
from tests.simulator.calibration.worlds import NOISE, recorded, true_s
from tests.simulator.small_runs import make_simulation
from workbench.errors import ConfigError
from workbench.metrics import summarize
from workbench.metrics.slo import SLO
from workbench.step_profile import StepShape
from workbench.workload.base import WorkloadRequest

SHAPE = StepShape(4, 400, [], 4)
REQUESTS = [WorkloadRequest(str(i), 0.03 * i, 20 + 17 * i % 90, 10 + 7 * i % 25) for i in range(16)]


class TrueMachine(CostModel):
    """The made-up machine without its noise."""

    def step_time(self, shape: StepShape) -> float:
        return true_s(shape)


class Fitted(CostModel):
    """Mean prices of a calibration."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration

    def step_time(self, shape: StepShape) -> float:
        return self.calibration.mean_s(shape)


def test_the_seed_decides() -> None:
    def times(seed: int) -> list[float]:
        model = UncertainCostModel(TrueMachine(), Spread(NOISE), seed)
        return [model.step_time(SHAPE) for _ in range(5)]

    assert times(1) == times(1)
    assert times(1) != times(2)
    model = UncertainCostModel(TrueMachine(), Spread(NOISE), 1)
    first, second = (model.for_replica(i).step_time(SHAPE) for i in range(2))
    assert first != second
    assert not model.is_repeatable


def test_a_model_error_shifts_whole_runs() -> None:
    target = LinearCostModel(base_s=0.01)
    spread = Spread.of(target, model_error=0.06)
    models = [UncertainCostModel(target, spread, seed) for seed in range(400)]
    logs = np.log([model.step_time(SHAPE) / 0.01 for model in models])
    assert logs.std() == pytest.approx(0.06, rel=0.15)
    assert models[0].step_time(SHAPE) == models[0].step_time(SHAPE)


def test_extrapolated_steps_are_less_sure() -> None:
    class Bounded(LinearCostModel):
        is_bounded = True

        def is_extrapolated(self, shape: StepShape) -> bool:
            return shape.num_decodes > 10

    spread = Spread(model_error=0.02, extrapolation=0.2)
    inside, outside = [], []
    for seed in range(300):
        model = UncertainCostModel(Bounded(base_s=0.01), spread, seed)
        inside.append(math.log(model.step_time(SHAPE) / 0.01))
        outside.append(math.log(model.step_time(StepShape(11, 110, [], 11)) / 0.01))
    assert np.std(inside) == pytest.approx(0.02, rel=0.2)
    assert np.std(outside) == pytest.approx(math.hypot(0.02, 0.2), rel=0.2)


def test_a_model_that_knows_no_error_needs_one_stated() -> None:
    with pytest.raises(ConfigError, match=r"uncertainty.model_error is not set, and Linear"):
        Spread.of(LinearCostModel(base_s=0.01))
    with pytest.raises(ConfigError, match=r"uncertainty.model_error=3"):
        Spread.of(LinearCostModel(base_s=0.01), 3)


def test_the_host_has_the_errors_of_its_step() -> None:
    calibration = Calibration(Prices({"step": 0.01}), Prices({"step": 0.002}))

    class Host(Fitted):
        def host_time(self, shape: StepShape) -> float:
            return self.calibration.host(shape)

    model = UncertainCostModel(Host(calibration), Spread(NOISE), 3)
    step = model.step_time(SHAPE)
    assert model.host_time(SHAPE) == pytest.approx(step / 6)


def simulated(cost_model: CostModel) -> dict[str, float]:
    result = make_simulation(REQUESTS, cost_model).run()
    summary = summarize(result.records, result.steps, SLO())
    names = ("ttft_s_mean", "tpot_s_mean", "e2e_s_p90", "output_tokens_per_s")
    return {name: float(summary[name] or 0) for name in names}


def test_the_band_covers_what_is_measured_as_often_as_it_says() -> None:
    """The machine has the noise and drift of `worlds`; each calibration knows eight runs of it."""
    worlds = 8
    inside = []
    for number in range(worlds):
        calibration = fit(recorded(runs=8, steps=60, seed=number))
        spread = Spread(calibration.jitter)
        drawn = [
            simulated(UncertainCostModel(Fitted(calibration), spread, seed)) for seed in range(24)
        ]
        for seed in range(3):
            machine = UncertainCostModel(TrueMachine(), Spread(NOISE), 1000 * number + seed)
            measured = simulated(machine)
            for name, value in measured.items():
                low, high = np.quantile([run[name] for run in drawn], (0.05, 0.95))
                inside.append(low <= value <= high)
    assert 0.8 <= np.mean(inside) <= 0.99


def test_without_errors_it_is_the_target() -> None:
    model = UncertainCostModel(TrueMachine(), Spread(Jitter()), 0)
    assert simulated(model) == simulated(TrueMachine())
