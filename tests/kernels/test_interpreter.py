"""The patched interpreter gives what torch gives, for the types that it would get wrong."""

import pytest
import torch
import triton
import triton.language as tl


@triton.jit
def _square_plus_one(x_ptr, y_ptr, N: tl.constexpr):
    index = tl.arange(0, N)
    x = tl.load(x_ptr + index)
    tl.store(y_ptr + index, x * x + 1.0)


@triton.jit
def _matmul(a_ptr, b_ptr, c_ptr, N: tl.constexpr):
    row, col = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    a = tl.load(a_ptr + row * N + col)
    b = tl.load(b_ptr + row * N + col)
    tl.store(c_ptr + row * N + col, tl.dot(a, b))


@triton.jit
def _cast(x_ptr, y_ptr, N: tl.constexpr):
    index = tl.arange(0, N)
    tl.store(y_ptr + index, tl.load(x_ptr + index).to(y_ptr.dtype.element_ty))


@triton.jit
def _count_to(n_ptr, y_ptr):
    total = 0
    for step in range(tl.load(n_ptr)):
        total += step
    tl.store(y_ptr, total)


def test_bfloat16_arithmetic_rounds_to_nearest(device: torch.device) -> None:
    x = torch.linspace(-3, 3, 64, device=device).bfloat16()
    y = torch.full_like(x, torch.nan)
    _square_plus_one[(1,)](x, y, N=64)
    torch.testing.assert_close(y, x * x + 1, rtol=2**-8, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dot_of_small_integers_is_exact(device: torch.device, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-3, 4, (16, 16), generator=generator).to(device, dtype) for _ in "ab")
    c = torch.full((16, 16), torch.nan, device=device)
    _matmul[(1,)](a, b, c, N=16)
    assert torch.equal(c, a.float() @ b.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_casts_are_torchs_and_float8_saturates(device: torch.device, dtype: torch.dtype) -> None:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        pytest.skip("float8 needs compute capability 8.9")
    x = torch.cat([torch.linspace(-440, 440, 60), torch.tensor([1e-3, 0.0, -1.0, 3e-7])]).to(device)
    y = torch.zeros(64, dtype=dtype, device=device)
    _cast[(1,)](x, y, N=64)
    assert torch.equal(y.float(), x.to(dtype).float())
    back = torch.zeros_like(x)
    _cast[(1,)](y, back, N=64)
    assert torch.equal(back, y.float())
    if dtype is torch.float8_e4m3fn:
        _cast[(1,)](x * 100, y, N=64)
        assert y.float().abs().max() == 448


def test_loops_may_end_at_a_loaded_number(device: torch.device) -> None:
    n = torch.tensor([5], dtype=torch.int32, device=device)
    total = torch.zeros(1, dtype=torch.int32, device=device)
    _count_to[(1,)](n, total)
    assert total.item() == 10
