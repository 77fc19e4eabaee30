"""RMSNorm beside its definition in float64."""

import pytest
import torch
from torch import Tensor

from engine.layers.norm import RMSNorm
from engine.layers.weights import Placement

ROUNDING = {torch.float32: 2**-22, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def make_norm(size: int, dtype: torch.dtype) -> RMSNorm:
    norm = RMSNorm(size, 1e-5, Placement(dtype, torch.device("cpu")))
    norm.weight.normal_(1.0, 0.2, generator=torch.Generator().manual_seed(0))
    return norm


def definition(x: Tensor, norm: RMSNorm) -> Tensor:
    x = x.double()
    return x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight.double()


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_norm_is_its_definition_rounded_once(dtype: torch.dtype, scale: float) -> None:
    norm = make_norm(64, dtype)
    x = torch.randn(7, 3, 64, generator=torch.Generator().manual_seed(1)).mul(scale).to(dtype)
    expected = definition(x, norm)
    assert ((norm(x) - expected).abs() <= expected.abs() * ROUNDING[dtype]).all()


def test_strided_rows_are_allowed() -> None:
    norm = make_norm(16, torch.float32)
    fused = torch.randn(5, 6, 16)
    q, _ = fused.split((4, 2), dim=1)
    assert norm(q).equal(norm(q.contiguous()))


def test_the_residual_is_added_in_place() -> None:
    norm = make_norm(16, torch.float32)
    x, residual = torch.randn(5, 16), torch.randn(5, 16)
    total = x + residual
    normed, summed = norm.add_and_norm(x, residual)
    assert summed is residual
    assert summed.equal(total)
    assert normed.equal(norm(total))


def test_zeros_stay_zeros() -> None:
    assert make_norm(8, torch.float32)(torch.zeros(2, 8)).equal(torch.zeros(2, 8))
