"""Delays beside an engine: found again where they were put in."""

import numpy as np
import pytest

from experiments.live_vllm.client import Answer
from experiments.live_vllm.front_end import FrontEnd, samples
from workbench.metrics import RequestRecord

FRONT = FrontEnd(0.004, 1e-5, 0.002, 1e-4)


def record(name, arrival, prompt, times):
    times = np.array(times)
    return RequestRecord(
        name, 0, arrival, arrival, times[-1], prompt, len(times), 0, 0, "length", times
    )


def test_fit_finds_the_delays_in_spite_of_stragglers():
    before = [(n, 0.004 + 1e-5 * n) for n in range(1, 400, 7)] + [(100, 0.5)]
    after = [(n, 0.002 + 1e-4 * n) for n in range(1, 17) for _ in range(9)] + [(3, 0.4)] * 3
    found = FrontEnd.fit(before, after)
    assert found.request_s == pytest.approx(0.004, rel=0.03)
    assert found.prompt_token_s == pytest.approx(1e-5, rel=0.05)
    assert found.step_s == pytest.approx(0.002, rel=0.05)
    assert found.output_s == pytest.approx(1e-4, rel=0.05)


def test_no_samples_no_delay():
    assert FrontEnd.fit([], []) == FrontEnd()


def test_samples_come_back_as_the_same_front_end():
    engine = {
        "a": record("a", 1.004, 0, [2.0, 3.0]),
        "b": record("b", 1.005, 100, [2.0, 3.0, 4.0]),
    }
    sent = {"a": 1.0, "b": 1.0}
    seen = FRONT.seen_by_clients(list(engine.values()), sent)
    answers = [Answer(r.request_id, r.arrival_s, r.token_times_s.tolist()) for r in seen]
    before, after = samples(answers, engine, idle=True)
    assert before == [(0, pytest.approx(0.004)), (100, pytest.approx(0.005))]
    assert sorted(n for n, _ in after) == [1, 2, 2, 2, 2]
    assert FrontEnd.fit(before, after).as_dict() == pytest.approx(FRONT.as_dict())
    assert samples(answers, engine, idle=False)[0] == []


def test_clients_see_tokens_later_and_never_backwards():
    slow = FrontEnd(0.0, 0.0, 0.0, 0.6)
    crowd = [record(f"c{n}", 0.0, 1, [1.0]) for n in range(4)]
    seen = slow.seen_by_clients(
        [record("a", 0.0, 1, [1.0, 1.5]), *crowd],
        dict.fromkeys("a", 0.0) | {c.request_id: 0.0 for c in crowd},
    )
    assert seen[0].token_times_s.tolist() == pytest.approx([4.0, 4.0])
    assert seen[0].finish_s == pytest.approx(4.0)
