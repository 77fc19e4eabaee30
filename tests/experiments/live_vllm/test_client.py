"""The streaming client, against a small server."""

import pytest

from experiments.live_vllm.client import Ask, CompletionClient
from tests.experiments.live_vllm.fake_server import FakeEngine, FakeServer


@pytest.fixture
def engine(tmp_path):
    return FakeEngine(tmp_path / "steps.jsonl")


def test_every_token_has_a_time_and_answers_keep_their_order(engine):
    with FakeServer(engine) as server:
        asks = [Ask(f"r{n}", list(range(3, 40 + n)), 2 + n) for n in range(6)]
        ends = []
        answers = CompletionClient(server.url, "fake").answers(asks, lambda: ends.append(1))
    assert [a.request_id for a in answers] == [a.request_id for a in asks]
    assert [len(a.token_times) for a in answers] == [2, 3, 4, 5, 6, 7]
    assert all(a.error is None for a in answers)
    assert all(a.token_times == sorted(a.token_times) for a in answers)
    assert all(a.sent_at <= a.token_times[0] for a in answers)
    assert len(ends) == 6


def test_requests_are_sent_at_their_times(engine):
    with FakeServer(engine) as server:
        asks = [Ask("late", [3, 4], 1, send_at=0.05), Ask("early", [3, 4], 1)]
        late, early = CompletionClient(server.url, "fake").answers(asks)
    assert late.sent_at - early.sent_at >= 0.04


def test_a_refused_request_says_why(engine):
    engine.refuse = 503
    with FakeServer(engine) as server:
        (answer,) = CompletionClient(server.url, "fake").answers([Ask("r", [3], 1)])
    assert answer.error is not None
    assert answer.error.startswith("status 503")
    assert "out of order" in answer.error


def test_nobody_there():
    (answer,) = CompletionClient("http://127.0.0.1:9", "fake").answers([Ask("r", [3], 1)])
    assert answer.error is not None
    assert "127.0.0.1" in answer.error
