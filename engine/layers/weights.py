"""Where parameters live, and which tensor of a checkpoint goes to which part of them.

Knows dtypes, devices and names. Does not know files: the loader copies tensors into the views that
are handed out here, so fused parameters are filled without a second copy.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Placement:
    """The dtype and device of a model's parameters; device "meta" gives shapes without memory."""

    dtype: torch.dtype
    device: torch.device

    def empty(self, *shape: int) -> nn.Parameter:
        """A parameter of `shape`, not initialised, without gradient."""
        tensor = torch.empty(shape, dtype=self.dtype, device=self.device)
        return nn.Parameter(tensor, requires_grad=False)


@dataclass(frozen=True, slots=True)
class Destination:
    """A view that takes one checkpoint tensor of the same shape.

    A tensor that replaces several of the plain layout (all experts in one, for example) names them
    in `stands_for`; an empty tuple means that it stands for itself.
    """

    tensor: Tensor
    stands_for: tuple[str, ...] = ()


Destinations = dict[str, Destination]
