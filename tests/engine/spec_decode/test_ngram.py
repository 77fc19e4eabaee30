"""The n-gram proposer beside its definition, written as loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.spec_decode.ngram import NgramProposer
from workbench.errors import ConfigError


def by_definition(tokens: list[int], k: int, min_n: int, max_n: int) -> list[int]:
    for n in range(max_n, min_n - 1, -1):
        for start in range(len(tokens) - n):
            if tokens[start : start + n] == tokens[-n:]:
                return tokens[start + n : start + n + k]
    return []


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_it_finds_what_its_definition_finds(
    tokens: list[int], k: int, min_n: int, extra: int
) -> None:
    proposer = NgramProposer(k, min_n, min_n + extra)
    found = proposer.propose(np.array(tokens, dtype=np.int32))
    assert found == by_definition(tokens, k, min_n, min_n + extra)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="k=0"):
        NgramProposer(0)
    with pytest.raises(ConfigError, match="min_n=4 and max_n=2"):
        NgramProposer(3, 4, 2)
