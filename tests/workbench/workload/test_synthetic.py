"""Synthetic workloads: seeds, streams, sessions, closed loops, attributes."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import WorkloadError
from workbench.workload.arrivals import (
    ClosedLoopArrivals,
    ConstantArrivals,
    GammaArrivals,
    PoissonArrivals,
)
from workbench.workload.attributes import Clients, DeadlineSlack, Priorities
from workbench.workload.base import WorkloadRequest
from workbench.workload.durations import ConstantDuration, ExponentialDuration
from workbench.workload.lengths import FixedLengths, LognormalLengths, UniformLengths
from workbench.workload.sharing import MultiTurn, NoSharing, SystemPrompts
from workbench.workload.synthetic import SyntheticWorkload


def make(**changes):
    settings = {
        "arrivals": PoissonArrivals(5.0),
        "prompt_lengths": LognormalLengths(100, 1.0),
        "output_lengths": UniformLengths(1, 200),
        "num_requests": 200,
        "seed": 7,
    }
    return SyntheticWorkload(**(settings | changes))


def run(workload: SyntheticWorkload, service: float = 1.5) -> list[WorkloadRequest]:
    """Serve every request `service` seconds after it comes; requests in order of arrival."""
    waiting, seen = list(workload.initial()), []
    while waiting:
        waiting.sort(key=lambda r: (r.arrival_time, int(r.request_id)))
        request = waiting.pop(0)
        seen.append(request)
        waiting += workload.after_finish(request.request_id, request.arrival_time + service)
    return seen


sharings = st.one_of(
    st.just(NoSharing()),
    st.builds(SystemPrompts, st.integers(1, 5), st.integers(1, 70), st.floats(0, 2)),
    st.builds(
        MultiTurn,
        st.just(UniformLengths(1, 5)),
        st.just(ExponentialDuration(2.0)),
        st.just(2),
        st.integers(1, 70),
        max_session_tokens=st.none() | st.integers(1, 2000),
    ),
)
loops = st.one_of(
    st.builds(PoissonArrivals, st.floats(0.1, 100)),
    st.builds(ClosedLoopArrivals, st.integers(1, 9), st.just(ExponentialDuration(1.0))),
)


@settings(deadline=None, max_examples=60)
@given(sharings, loops, st.integers(1, 60), st.integers(0, 2**63))
def test_every_world_is_whole_reproducible_and_chained(sharing, arrivals, n, seed):
    parts = {"sharing": sharing, "arrivals": arrivals, "num_requests": n, "seed": seed}
    workload = make(**parts)
    initial = list(workload.initial())
    assert all(a.arrival_time <= b.arrival_time for a, b in pairwise(initial))
    requests = run(workload)
    assert workload.num_requests == n == len(requests)
    assert len({r.request_id for r in requests}) == n
    assert pickle.dumps(requests) == pickle.dumps(run(make(**parts)))
    assert pickle.dumps(requests) == pickle.dumps(run(workload))  # a workload can be run again
    prefix_of: dict[int, tuple[int, ...]] = {}
    for r in requests:
        assert r.num_prompt_tokens >= 1
        assert r.num_output_tokens >= 1
        assert r.prompt_token_ids is None
        if r.hash_ids is None:
            continue
        assert len(r.hash_ids) == r.num_prompt_tokens // r.hash_block_size
        ids = r.hash_ids + (r.output_hash_ids or ())
        if r.output_hash_ids is not None:
            assert len(ids) == (r.num_prompt_tokens + r.num_output_tokens) // r.hash_block_size
        for i, block in enumerate(ids):
            assert prefix_of.setdefault(block, ids[:i]) == ids[:i]


def test_changing_one_part_leaves_the_others_alone():
    def columns(workload):
        requests = list(workload.initial())
        return (
            [r.arrival_time for r in requests],
            [r.num_prompt_tokens for r in requests],
            [r.num_output_tokens for r in requests],
            [r.priority for r in requests],
        )

    priorities = Priorities({0: 1, 1: 1})
    times, prompts, outputs, levels = columns(make(priorities=priorities))
    other = columns(make(priorities=priorities, arrivals=GammaArrivals(5.0, 0.2)))
    assert other[0] != times
    assert other[1:] == (prompts, outputs, levels)
    other = columns(make(priorities=priorities, prompt_lengths=FixedLengths(5)))
    assert other[1] != prompts
    assert (other[0], *other[2:]) == (times, outputs, levels)
    other = columns(make(clients=Clients(3), deadlines=DeadlineSlack(1.0)))
    assert other[:3] == (times, prompts, outputs)
    assert columns(make(seed=8))[:3] != (times, prompts, outputs)


def test_the_rate_scales():
    slow = [r.arrival_time for r in make().initial()]
    fast = [r.arrival_time for r in make(rate_scale=4.0).initial()]
    assert np.allclose(np.array(slow) / 4, fast)


def test_a_closed_loop_keeps_its_concurrency():
    think = ConstantDuration(0.25)
    workload = make(arrivals=ClosedLoopArrivals(4, think), num_requests=50)
    assert len(list(workload.initial())) == 4
    requests = run(workload, service=1.5)
    events = sorted(
        [(r.arrival_time, 1) for r in requests] + [(r.arrival_time + 1.5, -1) for r in requests]
    )
    running = np.cumsum([change for _, change in events])
    assert running.max() == 4
    rounds = sorted({r.arrival_time for r in requests})
    assert rounds == pytest.approx(np.arange(13) * 1.75)
    assert workload.after_finish(requests[-1].request_id, 99.0) == ()


def test_system_prompts_are_shared_and_nothing_else_is():
    sharing = SystemPrompts(num_prefixes=3, prefix_length=40, zipf_exponent=1.0, block_size=16)
    requests = list(make(sharing=sharing, num_requests=2000).initial())
    plain = list(make(num_requests=2000).initial())
    assert [r.num_prompt_tokens - 40 for r in requests] == [r.num_prompt_tokens for r in plain]
    prefixes = [r.hash_ids[:2] for r in requests]
    popular = [prefixes.count(p) for p in ((0, 1), (2, 3), (4, 5))]
    assert sum(popular) == 2000
    assert np.allclose(np.array(popular) / 2000, np.array([6, 3, 2]) / 11, atol=0.05)
    own = [block for r in requests for block in r.hash_ids[2:]]
    assert len(set(own)) == len(own)
    assert not set(own) & set(range(6))
    assert all(r.output_hash_ids is None for r in requests)


def test_sessions_grow_and_begin_with_what_was_said():
    sharing = MultiTurn(
        UniformLengths(1, 4), ConstantDuration(3.0), num_prefixes=2, prefix_length=33
    )
    workload = make(sharing=sharing, arrivals=ConstantArrivals(1.0))
    requests = run(workload)
    sessions: dict[str, list[WorkloadRequest]] = {}
    for r in requests:
        sessions.setdefault(r.session_id, []).append(r)
    assert workload.num_sessions == len(sessions)
    assert {len(turns) for turns in sessions.values()} == {1, 2, 3, 4}
    for turns in sessions.values():
        assert turns[0].num_prompt_tokens > 33
        for before, after in pairwise(turns):
            said = before.hash_ids + before.output_hash_ids
            assert after.hash_ids[: len(said)] == said
            assert after.num_prompt_tokens > before.num_prompt_tokens + before.num_output_tokens
            assert after.arrival_time == before.arrival_time + 1.5 + 3.0
    firsts = {turns[0].hash_ids[:2] for turns in sessions.values()}
    assert firsts == {(0, 1), (2, 3)}


def test_a_session_that_would_grow_too_long_ends():
    sharing = MultiTurn(FixedLengths(100), max_session_tokens=1000)
    lengths = {"prompt_lengths": FixedLengths(100), "output_lengths": FixedLengths(100)}
    requests = run(make(sharing=sharing, num_requests=12, **lengths))
    by_id = sorted(requests, key=lambda r: int(r.request_id))
    assert [r.num_prompt_tokens for r in by_id] == [100, 300, 500, 700, 900] * 2 + [100, 300]


def test_attributes_follow_their_distributions():
    workload = make(
        num_requests=5000,
        output_lengths=FixedLengths(10),
        priorities=Priorities({0: 1, 5: 3}),
        clients=Clients(2, zipf_exponent=1.0),
        deadlines=DeadlineSlack(1.0, per_output_token=0.1, spread=0.5),
    )
    requests = list(workload.initial())
    assert np.mean([r.priority == 5 for r in requests]) == pytest.approx(0.75, abs=0.03)
    assert np.mean([r.client_id == "client-0" for r in requests]) == pytest.approx(2 / 3, abs=0.03)
    slack = np.array([r.deadline - r.arrival_time for r in requests])
    assert slack.min() >= 1.0 - 1e-9
    assert slack.max() <= 3.0 + 1e-9
    assert slack.mean() == pytest.approx(2.0, rel=0.02)


def test_a_session_has_one_client_and_deadlines_of_each_turn():
    sharing = MultiTurn(FixedLengths(5))
    workload = make(sharing=sharing, clients=Clients(50), deadlines=DeadlineSlack(2.0))
    clients: dict[str, set[str]] = {}
    for r in run(workload):
        clients.setdefault(r.session_id, set()).add(r.client_id)
        assert r.deadline == r.arrival_time + 2.0
    assert all(len(names) == 1 for names in clients.values())
    assert len(set().union(*clients.values())) > 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_requests": 0}, "num_requests is 0, but it must be at least 1"),
        ({"num_requests": 2.5}, "num_requests is 2.5, which is not a whole number"),
        ({"seed": -1}, "seed is -1, but it must be at least 0"),
        ({"rate_scale": 0}, "rate_scale is 0, but it must be above 0"),
        (
            {"arrivals": 5.0},
            "arrivals is a float, but it must be a Arrivals; set arrivals._target_",
        ),
        ({"clients": 5}, "clients is a int"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(WorkloadError) as error:
        make(**changes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MultiTurn(FixedLengths(2), num_prefixes=1), "set both, or both to 0"),
        (lambda: MultiTurn(3), "turns is a int"),
        (lambda: SystemPrompts(0, 5), "num_prefixes is 0"),
        (lambda: Priorities({0: 0}), "add up to 0"),
        (lambda: Priorities({0.5: 1}), "priority is 0.5"),
        (lambda: DeadlineSlack(1, spread=2), "spread is 2, but it must be at most 1"),
        (lambda: Clients(0), "count is 0"),
    ],
)
def test_wrong_parts_are_named(build, message):
    with pytest.raises(WorkloadError) as error:
        build()
    assert message in str(error.value)


def test_an_id_of_another_workload_is_refused():
    with pytest.raises(WorkloadError, match="is not one of this workload's"):
        make().after_finish("somebody", 1.0)
    with pytest.raises(WorkloadError, match="is not one of this workload's"):
        make().after_finish("200", 1.0)
