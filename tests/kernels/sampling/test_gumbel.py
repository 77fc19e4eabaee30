"""What a draw depends on, what it does not depend on, and its law."""

import pytest
import torch
from torch import Tensor

from kernels.sampling import reference
from kernels.sampling.gumbel import gumbel_sample


def _draws(num_rows: int, device: torch.device, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    temperature = torch.ones(num_rows, device=device)
    seeds = torch.full((num_rows,), seed, device=device)
    return temperature, seeds, torch.arange(num_rows, device=device)


def _chi_square(tokens: Tensor, probabilities: Tensor) -> float:
    counts = torch.bincount(tokens.cpu(), minlength=len(probabilities)).double()
    expected = probabilities.double().cpu() * len(tokens)
    return ((counts - expected) ** 2 / expected).sum().item()


PROBABILITIES = torch.tensor([0.4, 0.07, 0.25, 0.18, 0.1])
LIMIT = 18.5  # 4 degrees of freedom: exceeded once in 1000 seeds


def test_tokens_come_with_their_probabilities(device: torch.device) -> None:
    logits = PROBABILITIES.log().to(device).repeat(80, 1)
    tokens, is_valid = gumbel_sample(logits, *_draws(80, device))
    assert is_valid.all()
    assert _chi_square(tokens, PROBABILITIES) < LIMIT


@pytest.mark.parametrize("over", ["positions", "seeds"])
def test_reference_draws_with_the_right_probabilities(over: str) -> None:
    # the kernel draws the reference's tokens (test_sampling_ops), so more of these are enough
    logits = PROBABILITIES.double().log()
    pairs = [(9, i) if over == "positions" else (i, 9) for i in range(1000)]
    noise = torch.stack([reference.gumbel_noise(seed, position, 5) for seed, position in pairs])
    assert _chi_square((logits + noise).argmax(dim=1), PROBABILITIES) < LIMIT


def test_temperature_divides_logits(device: torch.device) -> None:
    logits = torch.randn(1, 400, device=device).repeat(4, 1) * 3
    temperature, seeds, positions = _draws(4, device)
    hot, _ = gumbel_sample(logits, temperature * 2.0, seeds, positions)
    divided, _ = gumbel_sample(logits / 2.0, temperature, seeds, positions)
    assert torch.equal(hot, divided)


def test_a_row_is_drawn_alike_in_any_batch(device: torch.device) -> None:
    wide = torch.randn(4, 5000, device=device)
    logits, (temperature, seeds, positions) = wide[:, :4999], _draws(4, device)
    together, _ = gumbel_sample(logits, temperature, seeds, positions)
    order = torch.tensor([2, 0, 3], device=device)
    apart, _ = gumbel_sample(
        logits[order].contiguous(), temperature[order], seeds[order], positions[order]
    )
    assert torch.equal(apart, together[order])


def test_greedy_takes_the_largest_and_of_equal_ones_the_first(device: torch.device) -> None:
    logits = torch.randn(2, 4500, device=device)
    logits[0, [4200, 77, 1100]] = 9.0
    tokens, _ = gumbel_sample(logits, torch.zeros(2, device=device), *_draws(2, device)[1:])
    assert tokens.tolist() == [77, logits[1].argmax().item()]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_are_not_valid_are_told(device: torch.device, temperature: float) -> None:
    logits = torch.randn(5, 4200, device=device)
    logits[0, 4199] = torch.nan
    logits[1, 3] = torch.inf
    logits[2] = -torch.inf
    logits[3, :4199] = -torch.inf
    _, seeds, positions = _draws(5, device)
    temperatures = torch.full((5,), temperature, device=device)
    tokens, is_valid = gumbel_sample(logits, temperatures, seeds, positions)
    assert is_valid.tolist() == [False, False, False, True, True]
    assert tokens[3] == 4199
    assert ((tokens >= 0) & (tokens < 4200)).all()


def test_no_rows(device: torch.device) -> None:
    tokens, is_valid = gumbel_sample(torch.empty(0, 9, device=device), *_draws(0, device))
    assert tokens.shape == is_valid.shape == (0,)


def test_bad_arguments_are_refused(device: torch.device) -> None:
    logits = torch.randn(9, 2, device=device).t()
    with pytest.raises(ValueError, match="token stride 2"):
        gumbel_sample(logits, *_draws(2, device))
    with pytest.raises(ValueError, match="belong together"):
        gumbel_sample(logits.contiguous(), *_draws(2, device), thresholds=logits[:, 0])
