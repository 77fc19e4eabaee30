"""The noise is Philox, its law is exponential, and its smallest variates are right."""

import pytest
import torch
import triton
import triton.language as tl

from kernels.sampling import reference
from kernels.sampling.noise import exponential


@triton.jit
def _exponential_kernel(bits_ptr, out_ptr, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out_ptr + at, exponential(tl.load(bits_ptr + at).to(tl.uint32)))


# Random123's known answers (kat_vectors): counter, key, words
@pytest.mark.parametrize(
    ("counter", "key", "rounds", "words"),
    [
        (0, 0, 10, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (0xFFFFFFFF, 0xFFFFFFFF, 10, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (0, 0, 7, "5f6fb709 0d893f64 4f121f81 4f730a48"),
        (0xFFFFFFFF, 0xFFFFFFFF, 7, "5207ddc2 45165e59 4d8ee751 8c52f662"),
    ],
)
def test_reference_is_philox(counter: int, key: int, rounds: int, words: str) -> None:
    counters = tuple(torch.tensor([counter]) for _ in range(4))
    found = reference.philox((key, key), counters, rounds)
    assert " ".join(f"{word.item():08x}" for word in found) == words


def test_exponential_variates_are_right_down_to_the_smallest(device: torch.device) -> None:
    special = [0, 1, 2, 7, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 2000]
    # around 1 - u = 2/3, where the exponent changes
    special += [(1 << 32) // 3 + step for step in range(-3, 4)]
    spread = torch.linspace(0, 2**32 - 1000, 1024 - len(special), dtype=torch.float64).long()
    bits = torch.cat([torch.tensor(special), spread]).to(device)
    out = torch.full((1024,), torch.nan, device=device)
    _exponential_kernel[(1,)](bits, out, SIZE=1024)
    expected = -torch.log1p(-(bits.double() + 0.5) / 2.0**32)
    # u is a float32, and so are the largest variates' 1 - u: up to 2^-24 of u / (1 - u)
    u = (bits.double() + 0.5) / 2.0**32
    limit = 1e-5 * expected + 2.0**-23 / (1 - u)
    limit[u < 0.1] = 1e-5 * expected[u < 0.1]
    assert ((out.double() - expected).abs() <= limit).all()


def test_the_largest_bits_give_a_finite_variate(device: torch.device) -> None:
    bits = torch.full((1024,), 2**32 - 1, device=device)
    out = torch.full((1024,), torch.nan, device=device)
    _exponential_kernel[(1,)](bits, out, SIZE=1024)
    assert torch.isfinite(out).all()
    assert out[0] > 15.0


def test_uniform_variates_are_uniform() -> None:
    # four lanes of two blocks; 64 bins of 128 expected each
    u = reference.uniform(seed=5, position=3, vocab_size=8192)
    counts = torch.histc(u.float(), bins=64, min=0.0, max=1.0)
    chi_square = ((counts - 128) ** 2 / 128).sum().item()
    assert 30.0 < chi_square < 106.0  # 63 degrees of freedom: 1 in 3000 on either side
    assert len(u.unique()) > 8190


def test_neighbouring_draws_are_independent() -> None:
    rows = [reference.uniform(seed, position, 2048) for seed in (1, 2) for position in (0, 1)]
    rows.append(reference.uniform(1, 2**32, 2048))
    correlation = torch.corrcoef(torch.stack(rows)) - torch.eye(len(rows), dtype=torch.float64)
    assert correlation.abs().max() < 4.0 / 2048**0.5
