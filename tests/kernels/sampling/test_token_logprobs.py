"""Order, ties and bad rows of log-probabilities."""

import pytest
import torch

from kernels.sampling.logprobs import token_logprobs


def test_equal_logits_come_lowest_token_first(device: torch.device) -> None:
    logits = torch.zeros(1, 1000, device=device)
    logits[0, [900, 130, 5]] = 1.0
    chosen = torch.tensor([130], device=device)
    _, ranks, values, tokens = token_logprobs(logits, chosen, 6)
    assert tokens.tolist() == [[5, 130, 900, 0, 1, 2]]
    assert ranks.tolist() == [3]
    assert torch.allclose(values.exp()[0, :3], values.exp()[0, 0])


def test_what_is_masked_has_no_probability(device: torch.device) -> None:
    logits = torch.full((1, 300), -torch.inf, device=device)
    logits[0, [7, 200]] = 0.0
    chosen, ranks, values, tokens = token_logprobs(logits, torch.tensor([8], device=device), 4)
    assert chosen.tolist() == [-torch.inf]
    assert ranks.tolist() == [300]
    assert tokens[0, :2].tolist() == [7, 200]
    assert torch.allclose(values[0, :2], torch.tensor(0.5, device=device).log())
    assert values[0, 2:].tolist() == [-torch.inf] * 2


def test_nan_is_not_hidden(device: torch.device) -> None:
    logits = torch.randn(2, 400, device=device)
    logits[1, 399] = torch.nan
    chosen, _, values, tokens = token_logprobs(logits, torch.tensor([0, 0], device=device), 3)
    assert torch.isfinite(chosen[0])
    assert torch.isnan(chosen[1])
    assert torch.isnan(values[1]).all()
    assert ((tokens >= 0) & (tokens < 400)).all()


def test_more_than_the_vocabulary_is_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match=r"num_top=9 is outside \[0, 8\]"):
        token_logprobs(
            torch.zeros(1, 8, device=device), torch.zeros(1, dtype=torch.long, device=device), 9
        )


def test_no_rows(device: torch.device) -> None:
    ids = torch.empty(0, dtype=torch.long, device=device)
    results = token_logprobs(torch.empty(0, 8, device=device), ids, 2)
    assert [tuple(result.shape) for result in results] == [(0,), (0,), (0, 2), (0, 2)]
