"""Prompts made of block ids: what is shared, what is not, what an answer leaves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.workload_tokens import WorkloadTokens
from workbench.workload.base import WorkloadRequest

VOCABULARY = 1000


def request(num_tokens: int, ids: tuple[int, ...] | None, **fields: object) -> WorkloadRequest:
    return WorkloadRequest("r", 0.0, num_tokens, 4, hash_ids=ids, hash_block_size=8, **fields)  # type: ignore[arg-type]


@given(
    st.integers(1, 60),
    st.lists(st.integers(0, 1 << 40), max_size=7),
    st.integers(0, 1 << 40),
)
def test_a_prompt_has_its_length_and_fits_the_vocabulary(
    num_tokens: int, ids: list[int], seed: int
) -> None:
    tokens = WorkloadTokens(VOCABULARY, seed).prompt(request(num_tokens, tuple(ids)))
    assert len(tokens) == num_tokens
    assert all(0 <= token < VOCABULARY for token in tokens)


def test_equal_ids_give_equal_tokens_and_nothing_else_does() -> None:
    tokens = WorkloadTokens(VOCABULARY, 3)
    first, second = tokens.prompt(request(30, (5, 6, 7))), tokens.prompt(request(30, (5, 9, 7)))
    assert first[:8] == second[:8]
    assert first[8:16] != second[8:16]
    assert first[16:24] == second[16:24]
    assert first[24:] != second[24:]
    assert tokens.prompt(request(30, None)) != tokens.prompt(request(30, None))
    assert WorkloadTokens(VOCABULARY, 4).prompt(request(8, (5,))) != first[:8]


def test_tokens_are_spread_over_the_vocabulary() -> None:
    tokens = WorkloadTokens(VOCABULARY, 0).prompt(request(20_000, None))
    counts = np.bincount(tokens, minlength=VOCABULARY)
    assert counts.min() > 0
    assert counts.max() < 60
    assert len(set(np.diff(tokens).tolist())) > VOCABULARY


def test_a_later_turn_repeats_what_was_answered() -> None:
    tokens = WorkloadTokens(VOCABULARY, 0)
    turn = request(12, (1,), output_hash_ids=(2, 3))
    prompt = tokens.prompt(turn)
    answer = list(range(500, 514))
    tokens.learn(turn, prompt, answer)
    later = tokens.prompt(request(40, (1, 2, 3, 4, 5)))
    assert later[:24] == (prompt + answer)[:24]


def test_an_answer_that_broke_off_leaves_its_full_blocks() -> None:
    tokens = WorkloadTokens(VOCABULARY, 0)
    turn = request(8, (1,), output_hash_ids=(2, 3))
    prompt = tokens.prompt(turn)
    tokens.learn(turn, prompt, list(range(10)))
    later = tokens.prompt(request(24, (1, 2, 3)))
    assert later[:16] == prompt + list(range(8))
    assert later[16:18] != [8, 9]


@pytest.mark.parametrize("token", [-1, VOCABULARY])
def test_tokens_that_the_model_lacks_are_named(token: int) -> None:
    with pytest.raises(InputError, match=f"token id {token}, and the model's vocabulary ends"):
        WorkloadTokens(VOCABULARY, 0).check(request(2, None, prompt_token_ids=(3, token)))
