"""Ties, bad rows and arguments of routing."""

import pytest
import torch

from kernels.moe.routing import route


def test_equal_experts_are_taken_in_order(device: torch.device) -> None:
    weights, experts = route(torch.zeros(2, 6, device=device), 3, normalize=True)
    assert experts.tolist() == [[0, 1, 2]] * 2
    assert torch.allclose(weights, torch.full((2, 3), 1 / 3, device=device))


def test_experts_that_are_masked(device: torch.device) -> None:
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf, 2.0]], device=device)
    weights, experts = route(logits, 2, normalize=False)
    assert experts.tolist() == [[3, 1]]
    assert weights.sum().item() == pytest.approx(1.0)


def test_nan_stays_in_its_row(device: torch.device) -> None:
    logits = torch.randn(3, 8, device=device)
    logits[1, 2] = torch.nan
    weights, experts = route(logits, 2, normalize=True)
    assert torch.isfinite(weights[[0, 2]]).all()
    assert ((experts >= 0) & (experts < 8)).all()
    assert torch.isnan(weights[1]).any()


def test_rows_may_be_strided(device: torch.device) -> None:
    wide = torch.randn(5, 20, device=device)
    expected = route(wide[:, 3:11].contiguous(), 2, normalize=True)
    found = route(wide[:, 3:11], 2, normalize=True)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_no_tokens_and_bad_arguments(device: torch.device) -> None:
    weights, experts = route(torch.empty(0, 4, device=device), 2, normalize=True)
    assert weights.shape == experts.shape == (0, 2)
    with pytest.raises(ValueError, match=r"experts_per_token=5 is outside \[1, 4\]"):
        route(torch.zeros(1, 4, device=device), 5, normalize=True)
    with pytest.raises(ValueError, match="stride 3 between experts"):
        route(torch.zeros(4, 3, device=device).t(), 2, normalize=True)
