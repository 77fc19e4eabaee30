"""Speculative decoding in a simulation: accepted drafts."""

from typing import Any

import numpy as np
import pytest

from simulator.cost_models.linear import ConstantCostModel
from simulator.simulation import ClusterConfig
from tests.simulator.same_results import assert_same
from tests.simulator.small_runs import random_requests, simulate
from workbench.workload.base import WorkloadRequest


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("num_drafts", "alpha"), [(1, 0.6), (3, 0.8), (5, 0.3), (2, 0.0), (4, 1.0)]
)
def test_tokens_of_a_verification_match_the_formula(
    num_drafts: int, alpha: float, is_async: bool
) -> None:
    # Leviathan et al., ICML 2023, equation 1: (1 - a^(k+1)) / (1 - a) tokens a verification.
    requests = [WorkloadRequest(str(i), 0.0, 20, 1500) for i in range(16)]
    result = simulate(
        requests,
        ConstantCostModel(1.0),
        scheduler={
            "num_speculative_tokens": num_drafts,
            "max_model_len": 2048,
            "async_scheduling": is_async,
        },
        cluster=ClusterConfig(acceptance_rate=alpha),
        seed=5,
    )
    counts = []
    for record in result.records:
        assert record.output_tokens == 1500
        _, tokens = np.unique(record.token_times_s, return_counts=True)
        assert tokens[0] == 1  # from the prompt
        counts.append(tokens[1:-1])  # the last one is cut off at the end of the answer
    tokens = np.concatenate(counts)
    assert tokens.max() <= num_drafts + 1
    expected = sum(alpha**i for i in range(num_drafts + 1))
    error = tokens.std() / np.sqrt(len(tokens))
    assert abs(tokens.mean() - expected) <= 4 * error


def test_a_seed_decides_the_accepted_drafts_and_nothing_else() -> None:
    requests = random_requests(4, 20)
    settings: dict[str, Any] = {"scheduler": {"num_speculative_tokens": 3}}
    same = [simulate(requests, seed=7, **settings) for _ in range(2)]
    assert_same(*same)
    other = simulate(requests, seed=8, **settings)
    assert other.records != same[0].records
    assert_same(simulate(requests, seed=7), simulate(requests, seed=8))
