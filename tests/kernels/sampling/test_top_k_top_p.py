"""Ties, extremes and mixtures of top-k, top-p and min-p."""

import torch
from torch import Tensor

from kernels.sampling import reference
from kernels.sampling.gumbel import gumbel_sample
from kernels.sampling.top_k_top_p import (
    top_k_top_p_mask,
    top_k_top_p_sample,
    top_k_top_p_thresholds,
)


def _rules(
    device: torch.device,
    rows: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.full((rows,), temperature, device=device),
        torch.full((rows,), top_k, device=device, dtype=torch.int32),
        torch.full((rows,), top_p, device=device),
        torch.full((rows,), min_p, device=device),
    )


def _kept(masked: Tensor) -> list[list[int]]:
    return [torch.isfinite(row).nonzero().flatten().tolist() for row in masked]


def test_every_token_equal_to_the_kth_is_kept(device: torch.device) -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0, 2.0]], device=device)
    assert _kept(top_k_top_p_mask(logits, *_rules(device, 1, top_k=2))) == [[1, 2, 3, 5]]
    assert _kept(top_k_top_p_mask(logits, *_rules(device, 1, top_k=1))) == [[1]]


def test_every_token_equal_to_the_last_of_top_p_is_kept(device: torch.device) -> None:
    probabilities = torch.tensor([[0.5, 0.2, 0.2, 0.06, 0.04]], device=device)
    rules = _rules(device, 1, top_p=0.6)
    assert _kept(top_k_top_p_mask(probabilities.log(), *rules)) == [[0, 1, 2]]


def test_top_p_counts_what_the_other_rules_left(device: torch.device) -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]], device=device).log()
    # 0.4 of the two kept is 0.57 of their mass
    assert _kept(top_k_top_p_mask(logits, *_rules(device, 1, top_k=2, top_p=0.5))) == [[0]]
    assert _kept(top_k_top_p_mask(logits, *_rules(device, 1, min_p=0.6, top_p=0.5))) == [[0]]
    assert _kept(top_k_top_p_mask(logits, *_rules(device, 1, top_p=0.5))) == [[0, 1]]


def test_equal_logits_are_all_kept(device: torch.device) -> None:
    logits = torch.full((3, 300), -7.5, device=device)
    temperature, _, top_p, min_p = _rules(device, 3, top_p=0.01, min_p=1.0)
    top_k = torch.tensor([1, 0, 299], device=device, dtype=torch.int32)
    masked = top_k_top_p_mask(logits, temperature, top_k, top_p, min_p)
    assert torch.equal(masked, logits)


def test_logits_of_both_signs_and_tiny_size(device: torch.device) -> None:
    # neighbours in value that are far apart as integers
    logits = torch.tensor([[-1e-30, 1e-30, 0.0, -0.0, 1e-38, -5.0, -1e-38]], device=device)
    for k in (1, 2, 4, 6):
        rules = _rules(device, 1, top_k=k)
        assert torch.equal(
            top_k_top_p_mask(logits, *rules).double(), reference.top_k_top_p_mask(logits, *rules)
        )


def test_fewer_finite_logits_than_k(device: torch.device) -> None:
    logits = torch.full((1, 500), -torch.inf, device=device)
    logits[0, [3, 400]] = torch.tensor([1.0, 2.0], device=device)
    assert _kept(top_k_top_p_mask(logits, *_rules(device, 1, top_k=50))) == [[3, 400]]
    assert _kept(top_k_top_p_mask(logits, *_rules(device, 1, top_k=50, top_p=0.5))) == [[400]]


def test_rows_that_are_not_valid_end_and_are_told(device: torch.device) -> None:
    logits = torch.randn(3, 700, device=device)
    logits[0, 650] = torch.nan
    logits[1] = -torch.inf
    logits[2, 5] = torch.inf
    rules = _rules(device, 3, top_k=5, top_p=0.5, min_p=0.1)
    thresholds, _ = top_k_top_p_thresholds(logits, *rules)
    assert thresholds.tolist() == [-torch.inf] * 3
    row = torch.arange(3, device=device)
    tokens, is_valid = top_k_top_p_sample(logits, *rules, row, row)
    assert is_valid.tolist() == [False] * 3
    assert ((tokens >= 0) & (tokens < 700)).all()


def test_greedy_rows_keep_the_largest_logit(device: torch.device) -> None:
    logits = torch.randn(2, 90, device=device)
    thresholds, _ = top_k_top_p_thresholds(logits, *_rules(device, 2, temperature=0.0, top_k=9))
    assert torch.equal(thresholds, logits.amax(dim=1))


def test_a_sample_is_the_gumbel_sample_of_what_is_kept(device: torch.device) -> None:
    logits = torch.randn(4, 9000, device=device) * 4
    row = torch.arange(4, device=device)
    temperature, top_k, top_p, min_p = _rules(device, 4, temperature=0.7)
    top_k[::2], top_p[::3], min_p[2:] = 20, 0.8, 0.1
    rules = (temperature, top_k, top_p, min_p)
    sampled, _ = top_k_top_p_sample(logits, *rules, row + 7, row)
    masked = top_k_top_p_mask(logits, *rules)
    expected, _ = gumbel_sample(masked, temperature, row + 7, row)
    assert torch.equal(sampled, expected)
    assert torch.isfinite(masked.gather(1, sampled.unsqueeze(1))).all()


def test_samples_come_with_the_probabilities_of_what_is_kept() -> None:
    # the kernels draw the reference's tokens (test_sampling_ops), so many of these will do
    num_rows, device = 400, torch.device("cpu")
    logits = torch.tensor([0.3, 0.05, 0.25, 0.2, 0.2]).log().repeat(num_rows, 1)
    row = torch.arange(num_rows)
    rules = _rules(device, num_rows, top_k=4, top_p=0.5)
    tokens, _ = reference.top_k_top_p_sample(logits, *rules, torch.full_like(row, 3), row)
    counts = torch.bincount(tokens, minlength=5).tolist()
    assert counts[1] == counts[3] == counts[4] == 0
    expected = num_rows * 0.3 / 0.55
    # one degree of freedom: exceeded once in 1000 seeds
    assert (counts[0] - expected) ** 2 * (1 / expected + 1 / (num_rows - expected)) < 10.9
