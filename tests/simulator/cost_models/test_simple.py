"""Straight lines, recorded steps, and the optional package."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from simulator.cost_models.linear import ConstantCostModel, LinearCostModel
from simulator.cost_models.replay import ReplayCostModel
from simulator.cost_models.roofline import RooflineCostModel
from simulator.cost_models.silicon import SiliconCostModel
from simulator.hardware import HardwareConfig
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from simulator.simulation import ClusterConfig
from tests.simulator.small_runs import simulate
from workbench.errors import ConfigError, CostModelError
from workbench.step_profile import StepShape
from workbench.workload.base import WorkloadRequest

Load = Callable[[str], HardwareConfig]
SHAPE = StepShape(3, 100, [(10, 5), (20, 0)], 4, 2)


def test_a_line_counts_everything() -> None:
    def one(**what: float) -> float:
        return LinearCostModel(**what).step_time(SHAPE)

    assert one(base_s=1) == 1
    assert one(per_token_s=1) == 33
    assert one(per_context_token_s=1) == 135
    assert one(per_request_s=1) == 5
    assert one(per_swap_block_s=1) == 2
    assert ConstantCostModel(0.5).step_time(SHAPE) == 0.5
    with pytest.raises(ConfigError, match="per_token_s"):
        LinearCostModel(per_token_s=-1)
    with pytest.raises(ConfigError, match="step_s"):
        ConstantCostModel(0)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_replay_in_order_of_one_replica(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"steps.{suffix}"
    frame = pd.DataFrame({"replica": [0, 1, 0], "duration_s": [0.1, 0.2, 0.3]})
    frame.to_csv(path) if suffix == "csv" else frame.to_parquet(path)
    first, second = ReplayCostModel(str(path)), ReplayCostModel(str(path), replica=1)
    assert [first.step_time(SHAPE), first.step_time(SHAPE)] == [0.1, 0.3]
    assert second.step_time(SHAPE) == 0.2
    with pytest.raises(CostModelError, match=r"step 2 .* records 1"):
        second.step_time(SHAPE)


def test_every_replica_replays_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    path.write_text("replica,duration_s\n" + "0,1.0\n1,3.0\n" * 50)
    requests = [WorkloadRequest(str(i), 0.0, 5, 10) for i in range(4)]
    model = ReplayCostModel(str(path))
    for _ in range(2):  # a second run begins at the first row again
        result = simulate(requests, model, cluster=ClusterConfig(replicas=2))
        of: dict[int, set[float]] = {0: set(), 1: set()}
        for replica, seconds in zip(result.steps.replica, result.steps.duration_s, strict=True):
            of[replica].add(seconds)
        assert of == {0: {1.0}, 1: {3.0}}
    with pytest.raises(ConfigError, match=r"no row of replica 2 \(have \[0, 1\]\): set cluster"):
        simulate(requests, model, cluster=ClusterConfig(replicas=3))


def test_a_recording_without_replicas_is_of_one(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    path.write_text("duration_s\n" + "1.0\n" * 50)
    requests = [WorkloadRequest(str(i), 0.0, 5, 10) for i in range(4)]
    assert simulate(requests, ReplayCostModel(str(path))).duration_s == 10
    with pytest.raises(ConfigError, match=r"no row of replica 1 \(have \[0\]\)"):
        simulate(requests, ReplayCostModel(str(path)), cluster=ClusterConfig(replicas=2))


def test_one_recorded_replica_is_for_a_run_of_one(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    path.write_text("replica,duration_s\n" + "0,1.0\n1,3.0\n" * 50)
    requests, model = [WorkloadRequest("a", 0.0, 5, 10)], ReplayCostModel(str(path), replica=1)
    assert simulate(requests, model).duration_s == 30
    with pytest.raises(ConfigError, match=r"cost_model\.replica=1 names the rows of one replica"):
        simulate(requests, model, cluster=ClusterConfig(replicas=2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("replica,duration_s\nx,1\n", "'x' as replica of step 0"),
        ("duration_s\ninf\n", "of step 0"),
        ("a\n1\n", "lack the column duration_s"),
        ("duration_s\n", "no row of replica 0"),
        ("duration_s\n1\n-2\n", "of step 1"),
        ("duration_s\nfast\n", "'fast'"),
    ],
)
def test_bad_recordings_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "steps.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        ReplayCostModel(str(path))
    with pytest.raises(ConfigError, match="does not exist"):
        ReplayCostModel(str(tmp_path / "none.csv"))


@pytest.mark.skipif(
    importlib.util.find_spec("aiconfigurator_core") is not None, reason="the package is installed"
)
def test_missing_package_names_the_cure(hardware: Load, llama: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="pip install 'aiconfigurator-core"):
        SiliconCostModel(llama, hardware("h100"), ParallelConfig())


def test_unknown_system_is_named(hardware: Load, llama: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="v100 has no system"):
        SiliconCostModel(llama, hardware("v100"), ParallelConfig())


def test_aiconfigurator_is_near_the_roofline(hardware: Load, llama: ModelConfig) -> None:
    pytest.importorskip("aiconfigurator_core")
    for gpu, parallel in (("a100", ParallelConfig()), ("h100", ParallelConfig(2))):
        silicon = SiliconCostModel(llama, hardware(gpu), parallel)
        roofline = RooflineCostModel(llama, hardware(gpu), parallel)
        for shape in (
            StepShape(32, 32_000, [], 32),
            StepShape(0, 0, [(2048, 0)], 1),
            StepShape(64, 50_000, [(512, 1024), (200, 0)], 66),
        ):
            seconds = silicon.step_time(shape)
            assert seconds == pytest.approx(roofline.step_time(shape), rel=0.25)
            assert sum(silicon.breakdown(shape).values()) == pytest.approx(seconds)
    with pytest.raises(ConfigError, match="cannot build"):
        SiliconCostModel(llama, hardware("h100"), ParallelConfig(), version="0.0.1")
