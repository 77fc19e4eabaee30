"""The gate of the feed-forward blocks."""

from torch import Tensor
from torch.nn import functional


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) · up (arXiv:2002.05202) of gate_up [..., 2I] = gate, then up; gives [..., I]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate).mul_(up)
