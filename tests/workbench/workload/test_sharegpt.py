"""ShareGPT conversations become sessions."""

import json

import pytest

from workbench.errors import WorkloadError
from workbench.workload.arrivals import ClosedLoopArrivals, ConstantArrivals
from workbench.workload.durations import ConstantDuration
from workbench.workload.sharegpt import ShareGPTTrace


def talk(*messages):
    return {"conversations": [{"from": who, "value": text} for who, text in messages]}


CONVERSATIONS = [
    talk(("human", "x" * 100), ("gpt", "y" * 61), ("human", "z" * 4), ("gpt", "")),
    talk(("gpt", "an answer to nothing")),
    talk(("system", "s" * 8), ("human", "x"), ("gpt", "y" * 400), ("human", "no answer")),
    talk(("gpt", "cut"), ("human", "x" * 4), ("gpt", "y" * 4)),
]


def make(tmp_path, items=CONVERSATIONS, **options):
    path = tmp_path / "share.json"
    path.write_text(items if isinstance(items, str) else json.dumps(items))
    settings = {"arrivals": ConstantArrivals(1.0), "seed": 0} | options
    return ShareGPTTrace(str(path), **settings)


def test_turns_follow_each_other_and_share_their_prefix(tmp_path):
    workload = make(tmp_path, think_time=ConstantDuration(2.0))
    first, second, third = workload.initial()
    assert (workload.num_requests, workload.num_sessions, workload.num_skipped) == (4, 3, 1)
    assert (first.num_prompt_tokens, first.num_output_tokens) == (25, 16)
    assert (second.num_prompt_tokens, second.num_output_tokens) == (3, 100)
    assert (third.arrival_time, third.num_prompt_tokens) == (2.0, 1)
    (follow,) = workload.after_finish(first.request_id, 10.0)
    assert (follow.arrival_time, follow.num_prompt_tokens) == (12.0, 25 + 16 + 1)
    assert (follow.num_output_tokens, follow.session_id) == (1, first.session_id)
    assert first.hash_ids + first.output_hash_ids == follow.hash_ids
    assert not set(follow.hash_ids) & set(second.hash_ids + second.output_hash_ids)
    assert workload.after_finish(follow.request_id, 20.0) == ()


def test_first_turns_only_and_another_rule_of_tokens(tmp_path):
    workload = make(tmp_path, multi_turn=False, chars_per_token=2.0)
    assert workload.num_requests == 3
    assert [r.num_prompt_tokens for r in workload.initial()] == [50, 5, 2]


def test_requests_windows_and_rates(tmp_path):
    assert make(tmp_path, max_requests=1).num_requests == 1
    assert make(tmp_path, max_requests=3).num_requests == 3
    workload = make(tmp_path, start=0.5, duration=1.0, rate_scale=2.0)
    (request,) = workload.initial()
    assert (request.arrival_time, request.num_output_tokens) == (0.25, 100)


def test_conversations_in_a_closed_loop(tmp_path):
    workload = make(tmp_path, arrivals=ClosedLoopArrivals(1))
    (request,) = workload.initial()
    served = 1
    while following := workload.after_finish(request.request_id, 1.0):
        (request,) = following
        served += 1
    assert served == 4
    with pytest.raises(WorkloadError, match="a closed loop does not have"):
        make(tmp_path, arrivals=ClosedLoopArrivals(1), start=1.0)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ('[{"conversations": [', "line 1: not valid JSON"),
        ("{}", "holds a dict, but it must be a JSON list"),
        ([], "holds no conversation with an answer"),
        ([{"text": "x"}], "conversation 0: no list 'conversations'"),
        ([{"conversations": [{"from": "human"}]}], "conversation 0: a message needs the texts"),
        ([{"conversations": [5]}], "conversation 0: a message needs the texts"),
    ],
)
def test_bad_files_are_named(tmp_path, items, message):
    with pytest.raises(WorkloadError) as error:
        make(tmp_path, items)
    assert message in str(error.value)


def test_a_file_that_is_not_there_and_a_window_without_conversations(tmp_path):
    with pytest.raises(WorkloadError, match=r"no trace file .*download ShareGPT"):
        ShareGPTTrace("none.json", arrivals=ConstantArrivals(1.0), seed=0)
    with pytest.raises(WorkloadError, match="no conversation starts in the window from 50 s"):
        make(tmp_path, start=50.0)
