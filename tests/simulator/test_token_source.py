"""Answers of the simulated model: one token a row, or accepted drafts by a known law."""

import numpy as np
import pytest

from simulator.token_source import DraftTokenSource, LengthTokenSource
from workbench.errors import ConfigError
from workbench.outputs import BatchRows, NewRequestData, SchedulerOutput
from workbench.request import Request


def step(
    tokens: dict[str, int],
    new: dict[str, tuple[int, int]] | None = None,
    drafts: dict[str, int] | None = None,
    finished: tuple[str, ...] = (),
) -> SchedulerOutput:
    """A step by hand; `new` gives the prompt and the computed tokens of who joins."""
    output = SchedulerOutput(0)
    requests = [Request(name, 1, 1) for name in tokens]
    output._rows = BatchRows(requests, {r: tokens[r.request_id] for r in requests})
    for name, (num_prompt, num_computed) in (new or {}).items():
        output.scheduled_new_reqs.append(
            NewRequestData(name, num_prompt, None, (), None, (), num_computed)
        )
    output.scheduled_spec_decode_tokens = {n: [0] * k for n, k in (drafts or {}).items()}
    output.finished_req_ids = list(finished)
    return output


def test_by_length_nothing_is_said_of_tokens() -> None:
    answer = LengthTokenSource().sample(step({"a": 5}))
    assert answer.sampled_token_ids is None
    assert not answer.draft_token_ids


def test_a_row_gives_tokens_once_its_prompt_is_complete() -> None:
    source = DraftTokenSource(2, 1.0, seed=0)
    answer = source.sample(step({"a": 6, "b": 4}, new={"a": (10, 0), "b": (4, 0)}))
    assert answer.sampled_token_ids == [[], [0]]
    assert answer.draft_token_ids == {"b": [0, 0]}
    answer = source.sample(step({"a": 4, "b": 3}, drafts={"b": 2}))
    assert answer.sampled_token_ids == [[0], [0, 0, 0]]
    assert set(answer.draft_token_ids) == {"a", "b"}


@pytest.mark.parametrize(("alpha", "accepted"), [(0.0, 0), (1.0, 3)])
def test_certain_rates_accept_none_or_all(alpha: float, accepted: int) -> None:
    source = DraftTokenSource(3, alpha, seed=0)
    source.sample(step({"a": 8}, new={"a": (8, 0)}))
    for _ in range(20):
        answer = source.sample(step({"a": 4}, drafts={"a": 3}))
        assert answer.sampled_token_ids == [[0] * (1 + accepted)]


def test_a_preempted_request_answers_when_it_has_caught_up() -> None:
    source = DraftTokenSource(2, 1.0, seed=0)
    source.sample(step({"a": 8}, new={"a": (8, 0)}))
    source.sample(step({"a": 3}, drafts={"a": 2}))  # 4 tokens sampled
    back = source.sample(step({"a": 9}, new={"a": (8, 0)}))
    assert back.sampled_token_ids == [[]]
    back = source.sample(step({"a": 3}))
    assert back.sampled_token_ids == [[0]]


def test_a_finished_request_leaves_nothing_behind_and_its_name_can_be_used_again() -> None:
    source = DraftTokenSource(1, 1.0, seed=0)
    source.sample(step({"a": 8, "b": 2}, new={"a": (8, 0), "b": (2, 0)}))
    answer = source.sample(step({"a": 5}, new={"a": (9, 0)}, finished=("a", "b", "unknown")))
    assert answer.sampled_token_ids == [[]]
    source.sample(step({}, finished=("a",)))
    assert not source._num_prompt
    assert not source._num_sampled
    assert not source._num_computed


@pytest.mark.parametrize(("num_drafts", "alpha"), [(1, 0.3), (4, 0.7), (8, 0.9)])
def test_accepted_drafts_follow_the_truncated_geometric_law(num_drafts: int, alpha: float) -> None:
    source = DraftTokenSource(num_drafts, alpha, seed=3)
    source.sample(step({"a": 8}, new={"a": (8, 0)}))
    verification = step({"a": num_drafts + 1}, drafts={"a": num_drafts})
    counts = []
    for _ in range(4000):
        (row,) = source.sample(verification).sampled_token_ids or [[]]
        counts.append(len(row))
    tokens = np.array(counts)
    # Leviathan et al., ICML 2023: the expected number of tokens a verification
    expected = (1 - alpha ** (num_drafts + 1)) / (1 - alpha)
    assert abs(tokens.mean() - expected) <= 4 * tokens.std() / np.sqrt(len(tokens))
    for k in range(num_drafts + 1):
        share = alpha**k * (1 - alpha) if k < num_drafts else alpha**k
        assert abs((tokens == k + 1).mean() - share) <= 4 * np.sqrt(share / len(tokens))


def test_a_seed_repeats_itself() -> None:
    def run(seed: int) -> list[int]:
        source = DraftTokenSource(4, 0.5, seed)
        source.sample(step({"a": 8}, new={"a": (8, 0)}))
        verification = step({"a": 5}, drafts={"a": 4})
        return [len((source.sample(verification).sampled_token_ids or [[]])[0]) for _ in range(50)]

    assert run(1) == run(1) != run(2)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_is_a_probability(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"acceptance_rate=.* must be in \[0, 1\]"):
        DraftTokenSource(2, rate, seed=0)
