"""Steps are padded to the sizes of which there are graphs."""

import pytest

from simulator.cost_models.captured_graphs import CapturedGraphs, usual_sizes
from simulator.cost_models.roofline import RooflineCostModel
from simulator.hardware import HardwareConfig
from simulator.model_config import load_model_preset
from simulator.parallel import ParallelConfig
from workbench.errors import ConfigError
from workbench.step_profile import StepShape

GPU = HardwareConfig("gpu", 80, 2000, 300, 100, 300, 32)


def test_the_usual_sizes_are_those_of_the_server() -> None:
    assert usual_sizes(0) == ()
    assert usual_sizes(3) == (1, 2)
    assert usual_sizes(24) == (1, 2, 4, 8, 16, 24)
    assert usual_sizes(512)[-3:] == (480, 496, 512)
    assert {248, 256, 272} <= set(usual_sizes(300))
    assert max(usual_sizes(300)) == 288
    assert len(usual_sizes(512)) == 51


@pytest.mark.parametrize(
    ("tokens", "computed"),
    [(1, 1), (2, 2), (3, 4), (5, 8), (97, 104), (257, 272), (512, 512), (513, 513)],
)
def test_a_step_is_padded_to_the_next_graph(tokens: int, computed: int) -> None:
    assert CapturedGraphs(usual_sizes(512)).padded(tokens) == computed


def test_sizes_that_were_chosen_are_padded_to() -> None:
    graphs = CapturedGraphs([64, 1, 128, 64])
    assert (graphs.largest, graphs.padded(2), graphs.padded(65)) == (128, 64, 128)
    assert CapturedGraphs([]).largest == 0
    with pytest.raises(ConfigError, match=r"cost_model\.captured_sizes"):
        CapturedGraphs([0, 8])


def test_a_cost_model_takes_chosen_sizes() -> None:
    model = load_model_preset("llama3_8b")
    exact = RooflineCostModel(model, GPU, ParallelConfig())
    chosen = RooflineCostModel(
        model, GPU, ParallelConfig(), captured_sizes=[100, 1], launch_gap_s=1.0
    )
    shape, full = StepShape(60, 6000, [], 60), StepShape(100, 6000, [], 60)
    assert chosen.breakdown(shape)["gate_up_proj"] == exact.breakdown(full)["gate_up_proj"]
    assert chosen.step_time(shape) > exact.step_time(shape)
    assert chosen.step_time(StepShape(101, 6000, [], 101)) > 1.0  # beyond the largest graph
