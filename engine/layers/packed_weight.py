"""Weights in the layout that a CPU multiplies fastest, and what a CPU computes in hardware.

torch's own `linear` packs the weight anew in every call, which for a few dozen rows costs about as
much as the product. Here it is packed once. Knows layouts and instruction sets; does not know
models.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

EXACT_ROWS = 32
"""Products of up to so many rows, most of them decodes, are computed with none more."""


class PackedWeight(Protocol):
    """A matrix [out_features, in_features] that has been laid out for products."""

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x Wᵀ + b for x [T, in_features]; returns [T, out_features], contiguous."""
        ...


class OneDnnWeight:
    """Blocks of oneDNN, as the compiler of torch uses them; the block size fits any T.

    oneDNN writes a kernel for every T that it meets, about a millisecond of work that a prompt of a
    new length would wait for. So the rows of larger T are filled up to one of few sizes.
    """

    def __init__(self, weight: Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `PackedWeight`."""
        num_rows = len(x)
        size = kernel_size(num_rows)
        if size > num_rows:
            x = functional.pad(x, (0, 0, 0, size - num_rows))
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, bias, "none", [], "")
        return out[:num_rows]


def kernel_size(num_rows: int) -> int:
    """The number of rows that a product of `num_rows` is computed with, at most an eighth more."""
    if num_rows <= EXACT_ROWS:
        return num_rows
    step = 1 << max(num_rows.bit_length() - 4, 0)
    return -(-num_rows // step) * step


def kernel_sizes(most: int) -> list[int]:
    """All sizes of products of up to `most` rows, ascending."""
    return sorted({kernel_size(num_rows) for num_rows in range(1, most + 1)})


class TransposedWeight:
    """[in_features, out_features], contiguous: what a plain product reads in order."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.t().contiguous()

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `PackedWeight`."""
        if bias is None:
            return torch.mm(x, self._weight)
        return torch.addmm(bias, x, self._weight)


def pack(weight: Tensor) -> PackedWeight | None:
    """A packed copy of weight [out_features, in_features]; None where packing gains nothing.

    That is on other devices than CPUs, and for 16-bit floats that the CPU does not multiply.
    """
    if weight.device.type != "cpu" or not is_native(weight.dtype, weight.device):
        return None
    try:
        return OneDnnWeight(weight)
    except (AttributeError, RuntimeError):
        # a torch without oneDNN, or with other operators than these, which are not public
        return TransposedWeight(weight)


def without_values(weight: nn.Parameter) -> nn.Parameter:
    """A parameter of the same shape and dtype that takes no memory."""
    return nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)


def is_native(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device multiplies matrices of `dtype` in hardware.

    Every GPU does. x86 CPUs do so for bfloat16 with AVX512-BF16 or AMX, for float16 with AMX-FP16;
    the others convert value by value, several times slower than float32.
    """
    if dtype not in (torch.bfloat16, torch.float16) or device.type != "cpu":
        return True
    if not _cpu_has("avx2"):
        return True  # not x86: what is faster there is not known
    if dtype == torch.bfloat16:
        return _cpu_has("avx512_bf16") or _cpu_has("amx_tile")
    return _cpu_has("amx_fp16")


def _cpu_has(feature: str) -> bool:
    probe = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return probe is not None and bool(probe())
