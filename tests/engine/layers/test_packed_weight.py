"""Packed weights beside the product in float64, and what is packed at all."""

import pytest
import torch

from engine.layers.packed_weight import (
    EXACT_ROWS,
    OneDnnWeight,
    TransposedWeight,
    is_native,
    kernel_size,
    kernel_sizes,
    pack,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", [OneDnnWeight, TransposedWeight])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(
    ("tokens", "inputs", "outputs"), [(0, 8, 8), (1, 7, 5), (33, 8, 3), (70, 64, 130)]
)
def test_products_are_those_of_the_matrix(
    kind: type[OneDnnWeight | TransposedWeight],
    has_bias: bool,
    tokens: int,
    inputs: int,
    outputs: int,
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator)
    bias = torch.randn(outputs, generator=generator) if has_bias else None
    x = torch.randn(tokens, 2 * inputs, generator=generator)[:, :inputs]
    expected = x.double() @ weight.double().T + (0 if bias is None else bias)
    out = kind(weight).linear(x, bias)
    assert out.is_contiguous()
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_few_sizes_serve_all_numbers_of_rows() -> None:
    sizes = [kernel_size(num_rows) for num_rows in range(5000)]
    assert sizes[: EXACT_ROWS + 1] == list(range(EXACT_ROWS + 1))
    assert all(n <= size <= n + n // 8 for n, size in enumerate(sizes))
    assert sizes == sorted(sizes)
    assert set(sizes) - {0} == set(kernel_sizes(4999))
    assert len(set(sizes)) < 100


def test_a_torch_without_the_operators_transposes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: OneDnnWeight, weight: torch.Tensor) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(OneDnnWeight, "__init__", refuse)
    assert isinstance(pack(torch.ones(2, 3)), TransposedWeight)


def test_only_what_the_device_multiplies_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pack(torch.empty(2, 3, device="meta")) is None
    for dtype in (torch.bfloat16, torch.float16):
        packed = pack(torch.ones(2, 3, dtype=dtype))
        assert (packed is not None) == is_native(dtype, CPU)


@pytest.mark.parametrize(
    ("features", "dtype", "expected"),
    [
        ({"avx2"}, torch.float32, True),
        ({"avx2"}, torch.bfloat16, False),
        ({"avx2"}, torch.float16, False),
        ({"avx2", "avx512_bf16"}, torch.bfloat16, True),
        ({"avx2", "amx_tile"}, torch.bfloat16, True),
        ({"avx2", "amx_tile"}, torch.float16, False),
        ({"avx2", "amx_fp16"}, torch.float16, True),
        (set(), torch.bfloat16, True),
    ],
)
def test_native_formats_follow_the_instruction_sets(
    features: set[str], dtype: torch.dtype, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.layers.packed_weight._cpu_has", lambda feature: feature in features)
    assert is_native(dtype, CPU) is expected
    assert is_native(dtype, torch.device("cuda"))
