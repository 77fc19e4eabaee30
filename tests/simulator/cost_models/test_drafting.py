"""The drafter's share of a step."""

from pathlib import Path

import numpy as np
import pytest

from simulator.calibration import fit
from simulator.cluster import cost_models_of
from simulator.cost_models.calibrated import CalibratedCostModel
from simulator.cost_models.drafting import DraftingCostModel
from simulator.cost_models.linear import LinearCostModel
from simulator.cost_models.replay import ReplayCostModel
from simulator.simulation import ClusterConfig
from tests.simulator.calibration.worlds import designed, recorded
from tests.simulator.small_runs import linear_cost_model, make_simulation, random_requests, simulate
from workbench.step_profile import StepShape

LINE = LinearCostModel(base_s=1.0, per_token_s=0.1, per_context_token_s=0.001)


def test_a_run_of_the_drafter_is_a_share_of_a_decode_step_of_all_rows() -> None:
    model = DraftingCostModel(LINE, num_drafts=3, draft_cost=0.1)
    shape = StepShape(2, 100, [(4, 50), (4, 200)], 10)
    one_token_each = LINE.step_time(StepShape(4, 100 + 54 + 204, [], 4))
    assert model.step_time(shape) == pytest.approx(LINE.step_time(shape) + 0.3 * one_token_each)
    assert model.host_time(shape) == LINE.host_time(shape)


def test_a_model_whose_steps_scatter_has_a_drafter_as_well(tmp_path: Path) -> None:
    fit(designed() + recorded(runs=4, steps=150)).save(tmp_path / "calibration.json")
    cluster = ClusterConfig(draft_cost=0.1)
    shape = StepShape(2, 100, [], 2)
    seconds = {}
    for noise in (None, 5):
        model = CalibratedCostModel(str(tmp_path / "calibration.json"), noise=noise)
        (priced,) = cost_models_of(model, cluster, 3)
        times = [(priced.step_time(shape), priced.host_time(shape)) for _ in range(4000)]
        seconds[noise] = np.array(times).mean(axis=0)
    assert seconds[5] == pytest.approx(seconds[None], rel=0.02)
    assert seconds[None][0] > 1.1 * model.calibration.mean_s(shape)


def test_a_recording_of_whole_steps_has_the_drafter_in_it(tmp_path: Path) -> None:
    (tmp_path / "steps.csv").write_text("duration_s\n0.5\n")
    replay = ReplayCostModel(str(tmp_path / "steps.csv"))
    (priced,) = cost_models_of(replay, ClusterConfig(draft_cost=0.1), 3)
    assert not isinstance(priced, DraftingCostModel)


def test_a_step_that_samples_nothing_drafts_nothing() -> None:
    model = DraftingCostModel(LINE, num_drafts=3, draft_cost=0.1)
    for shape in (StepShape(), StepShape(0, 0, [(100, 0)], 0)):
        assert model.step_time(shape) == LINE.step_time(shape)


def test_drafts_cost_what_the_cluster_says() -> None:
    requests = random_requests(seed=3, count=20, rate=None)
    free, cheap, dear = (
        simulate(
            requests,
            scheduler={"num_speculative_tokens": 3},
            cluster=ClusterConfig(draft_cost=cost, acceptance_rate=1.0),
        ).duration_s
        for cost in (0.0, 0.1, 1.0)
    )
    assert free < cheap < dear
    # without drafts there is no drafter
    plain = [
        simulate(requests, cluster=ClusterConfig(draft_cost=cost)).duration_s for cost in (0.0, 1.0)
    ]
    assert plain[0] == plain[1]


def test_a_drafter_as_dear_as_the_model_never_pays() -> None:
    # with every draft accepted, k + 1 tokens cost a verification and k runs as long as a step
    requests = random_requests(seed=3, count=1, rate=None, outputs=(100, 100))
    plain = simulate(requests, linear_cost_model())
    drafted = simulate(
        requests,
        linear_cost_model(),
        scheduler={"num_speculative_tokens": 4},
        cluster=ClusterConfig(draft_cost=1.0, acceptance_rate=1.0),
    )
    assert drafted.duration_s > plain.duration_s


def test_recorded_steps_hold_the_drafter_already(tmp_path: Path) -> None:
    from simulator.cost_models.replay import ReplayCostModel

    path = tmp_path / "steps.csv"
    path.write_text("duration_s\n" + "0.5\n" * 1000)
    simulation = make_simulation(
        random_requests(seed=3, count=2, rate=None),
        ReplayCostModel(str(path)),
        scheduler={"num_speculative_tokens": 2},
    )
    assert set(simulation.run().steps.duration_s) == {0.5}
