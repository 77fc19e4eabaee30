"""The designed workload of a calibration keeps to the engine's limits."""

from experiments.bursts import burst_sizes, burst_workload
from simulator.calibration import Calibration
from simulator.calibration.terms import Prices

MODEL = Calibration(Prices({"step": 0.005, "decodes": 0.0005}), Prices({}))


def test_bursts_reach_every_size_of_batch() -> None:
    assert burst_sizes(16) == [1, 2, 4, 8, 16, 25]
    assert burst_sizes(1) == [1, 2]


def test_lengths_and_times_are_within_limits() -> None:
    workload = burst_workload(MODEL, 256, 16, 1000, seconds=10.0, seed=3)
    requests = list(workload.initial())
    assert len(requests) > 20
    assert max(r.num_prompt_tokens + r.num_output_tokens for r in requests) <= 800
    assert min(r.num_output_tokens for r in requests) >= 1
    assert requests[-1].arrival_time < 30
    assert requests == list(burst_workload(MODEL, 256, 16, 1000, 10.0, seed=3).initial())
