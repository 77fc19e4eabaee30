"""Log probabilities: values, ranks, how many, and how users see them."""

import numpy as np
import pytest
import torch

from engine.logprobs import gather_logprobs, with_kernel, with_torch
from engine.logprobs_text import describe_logprobs
from engine.outputs import Logprob
from workbench.token_logprobs import TokenLogprobs


def test_values_and_ranks_are_those_of_the_whole_softmax() -> None:
    logits = torch.tensor(np.random.default_rng(0).normal(size=(5, 50)) * 3, dtype=torch.float32)
    token_ids = torch.tensor([0, 7, 49, 20, 3])
    told = gather_logprobs(logits, token_ids, 4).as_list()
    exact = logits.double().log_softmax(-1)
    for row, position in enumerate(told):
        assert position.token_ids[0] == token_ids[row]
        assert position.token_ids[1:] == exact[row].argsort(descending=True)[:4].tolist()
        for token_id, logprob in zip(position.token_ids, position.logprobs, strict=True):
            assert logprob == pytest.approx(exact[row, token_id].item(), abs=1e-5)
        assert position.rank == 1 + int((exact[row] > exact[row, token_ids[row]]).sum())


@pytest.mark.parametrize("most", [0, 1, 5])
def test_the_kernel_tells_the_same(most: int) -> None:
    generator = torch.Generator().manual_seed(most)
    logits = 3 * torch.randn(4, 1000, generator=generator)
    token_ids = torch.randint(1000, (4,), generator=generator)
    for ours, expected in zip(
        with_kernel(logits, token_ids, most), with_torch(logits, token_ids, most), strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_logits_that_round_to_one_log_probability_keep_their_ranks() -> None:
    logits = torch.tensor([[1000.0, 0.0, 1e-5, 2e-5]])
    assert gather_logprobs(logits, torch.tensor([1]), 0).as_list()[0].rank == 4


def test_counts_and_names_of_rows_are_kept() -> None:
    logits = torch.arange(12.0).view(3, 4)
    told = gather_logprobs(logits, torch.tensor([0, 1, 2]), np.array([2, 0, -1]), [4, 6, 9])
    assert [len(position.token_ids) for position in told.to_host().by_row.values()] == [3, 1, 5]
    assert list(told.by_row) == [4, 6, 9]
    assert told.by_row[6] == TokenLogprobs([1], [pytest.approx(-2.4401897)], 3)


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.zeros(1, 4096, dtype=torch.bfloat16)
    told = gather_logprobs(logits, torch.tensor([5]), 1).as_list()[0]
    assert told.logprobs[0] == pytest.approx(-np.log(4096), abs=1e-4)


def test_no_rows_are_no_positions() -> None:
    assert gather_logprobs(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 2).as_list() == []


def test_users_see_the_token_itself_first_and_then_the_best() -> None:
    class Letters:
        def decode(self, token_ids: list[int]) -> str:
            return chr(97 + token_ids[0])

    positions = [TokenLogprobs([3, 0, 1], [-4.0, -0.1, -2.0], 17)]
    (described,) = describe_logprobs(positions, Letters())
    assert list(described) == [3, 0, 1]
    assert described == {
        3: Logprob(-4.0, 17, "d"),
        0: Logprob(-0.1, 1, "a"),
        1: Logprob(-2.0, 2, "b"),
    }
    (twice,) = describe_logprobs([TokenLogprobs([0, 0, 1], [-0.1, -0.1, -2.0], 1)])
    assert twice == {0: Logprob(-0.1, 1), 1: Logprob(-2.0, 2)}
