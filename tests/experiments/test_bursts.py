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
    sharing = number = 0
    for seed in range(12):
        workload = burst_workload(MODEL, 256, 16, 1000, 20.0, seed=seed, block_size=16)
        requests = list(workload.initial())
        assert all(len(r.hash_ids or ()) == r.num_prompt_tokens // 16 for r in requests)
        first = Counter(r.hash_ids[0] for r in requests if r.hash_ids)
        sharing += sum(found for found in first.values() if found > 1)
        number += len(requests)
        last = [r.hash_ids[-1] for r in requests if r.hash_ids and len(r.hash_ids) > 20]
        assert len(last) == len(set(last))
    assert 0.3 < sharing / number < 0.7
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
    for model in (MODEL, slow):
        for seed in range(9):
            requests = burst_workload(model, 256, 16, 1000, seconds=9.0, seed=seed).initial()
            at_once = sum(request.arrival_time == 0.0 for request in requests)
            assert at_once >= 13  # half of a burst that is more than full
