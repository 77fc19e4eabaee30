"""The designed workload of a calibration keeps to the engine's limits."""

from collections import Counter

from experiments.bursts import burst_sizes, burst_workload
from simulator.calibration import Calibration
from simulator.calibration.terms import Prices

MODEL = Calibration(Prices({"step": 0.005, "decodes": 0.0005}), Prices({}))


def test_bursts_reach_every_size_of_batch() -> None:
    assert burst_sizes(16) == [1, 2, 4, 8, 16, 48]
    assert burst_sizes(1) == [1, 3]


def test_some_bursts_begin_with_the_same_text() -> None:
    requests = list(burst_workload(MODEL, 256, 16, 1000, 20.0, seed=3, block_size=16).initial())
    assert all(len(r.hash_ids or ()) == r.num_prompt_tokens // 16 for r in requests)
    first = Counter(r.hash_ids[0] for r in requests if r.hash_ids)
    sharing = sum(number for number in first.values() if number > 1)
    assert 0.2 < sharing / len(requests) < 0.8
    last = [r.hash_ids[-1] for r in requests if r.hash_ids and len(r.hash_ids) > 20]
    assert len(last) == len(set(last))
    alone = list(burst_workload(MODEL, 256, 16, 40, 20.0, seed=3, block_size=16).initial())
    assert max(Counter(r.hash_ids[:1] for r in alone if r.hash_ids).values()) == 1


def test_lengths_and_times_are_within_limits() -> None:
    workload = burst_workload(MODEL, 256, 16, 1000, seconds=10.0, seed=3)
    requests = list(workload.initial())
    assert len(requests) > 20
    assert max(r.num_prompt_tokens + r.num_output_tokens for r in requests) <= 800
    assert min(r.num_output_tokens for r in requests) >= 1
    assert requests[-1].arrival_time < 30
    assert requests == list(burst_workload(MODEL, 256, 16, 1000, 10.0, seed=3).initial())


def test_a_burst_fills_the_batch_however_slow_the_engine_is() -> None:
    slow = Calibration(Prices({"step": 1.0, "decodes": 1.0}), Prices({}))
    for model, size in ((MODEL, 48), (slow, 25)):
        # recordings of a slow engine have a burst or two, each of another size
        runs = [burst_workload(model, 256, 16, 1000, seconds=30.0, seed=i) for i in range(9)]
        times = [Counter(request.arrival_time for request in run.initial()) for run in runs]
        assert max(max(together.values()) for together in times) == (size + 1) // 2
