"""What the pass may and may not touch, and the views it takes."""

import pytest
import torch
from torch import Tensor

from kernels.kv_cache import reference
from kernels.kv_cache.ops import angles
from kernels.kv_cache.rotary_cache_write import rotary_cache_write

HEADS, KV_HEADS, DIM, PAGE = 4, 2, 8, 4


def _fused(num_tokens: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One projection's output and q, k, v as views of it."""
    generator = torch.Generator(device=device).manual_seed(1)
    fused = torch.randn(num_tokens, 8 * DIM, device=device, generator=generator)
    q, k, v = fused.view(num_tokens, 8, DIM).split([HEADS, KV_HEADS, KV_HEADS], dim=1)
    return fused, q, k, v


def _cache(device: torch.device) -> Tensor:
    return torch.full((2, 3, KV_HEADS, PAGE, DIM), torch.nan, device=device)


def test_views_of_one_projection(device: torch.device) -> None:
    fused, q, k, v = _fused(5, device)
    before, cache, table = fused.clone(), _cache(device), angles(32, DIM, device)
    positions = torch.tensor([3, 0, 31, 7, 7], device=device)
    slots = torch.tensor([4, -1, 11, 0, 5], device=device)
    expected = reference.rotary_cache_write(q, k, v, table, positions, slots, *cache)
    out = rotary_cache_write(q, k, v, table, positions, slots, *cache)
    assert out is q
    assert torch.allclose(q.double(), expected[0])
    # NaN stands wherever nothing may be written
    assert torch.allclose(cache[0], expected[1], equal_nan=True)
    assert torch.allclose(cache[1], expected[2], equal_nan=True)
    assert torch.equal(fused[:, HEADS * DIM :], before[:, HEADS * DIM :])


def test_another_tensor_for_rotated_queries(device: torch.device) -> None:
    _, q, k, v = _fused(3, device)
    before, cache, table = q.clone(), _cache(device), angles(32, DIM, device)
    positions, slots = torch.arange(3, device=device), torch.arange(3, device=device)
    room = torch.full((3, HEADS + 2, DIM), torch.nan, device=device)
    rotary_cache_write(q, k, v, table, positions, slots, *cache, q_out=room[:, 1:-1])
    assert torch.equal(q, before)
    assert torch.allclose(room[:, 1:-1].double(), reference.rotate(q, table, positions))
    assert torch.isnan(room[:, [0, -1]]).all()


def test_position_zero_does_not_turn(device: torch.device) -> None:
    _, q, k, v = _fused(2, device)
    before, cache = q.clone(), _cache(device)
    zeros = torch.zeros(2, dtype=torch.long, device=device)
    slots = torch.tensor([0, 1], device=device)
    rotary_cache_write(q, k, v, angles(4, DIM, device), zeros, slots, *cache)
    assert torch.equal(q, before)
    assert torch.equal(cache[0, 0, :, :2].transpose(0, 1), k)
    assert torch.equal(cache[1, 0, :, :2].transpose(0, 1), v)


def test_nothing_to_write(device: torch.device) -> None:
    _, q, k, v = _fused(0, device)
    cache, none = _cache(device), torch.empty(0, dtype=torch.long, device=device)
    rotary_cache_write(q, k, v, angles(4, DIM, device), none, none, *cache)
    assert torch.isnan(cache).all()


def test_shapes_that_do_not_fit_are_refused(device: torch.device) -> None:
    _, q, k, v = _fused(2, device)
    cache, slots = _cache(device), torch.arange(2, device=device)
    with pytest.raises(ValueError, match="does not hold 1 heads of 8"):
        rotary_cache_write(q, k[:, :1], v, angles(4, DIM, device), slots, slots, *cache)
    with pytest.raises(ValueError, match="16 columns, must have head_dim 8"):
        rotary_cache_write(q, k, v, angles(4, 16, device), slots, slots, *cache)
