"""Root-mean-square normalisation, with the residual addition before it.

Knows nothing of where in a model it stands.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.layers.weights import Destination, Destinations, Placement


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight over the last dimension (arXiv:1910.07467).

    Computed in float32 and rounded once.
    """

    def __init__(self, size: int, eps: float, placement: Placement) -> None:
        super().__init__()
        self.eps = eps
        self.weight = placement.empty(size)

    def destinations(self, name: str) -> Destinations:
        """The view of the weight; `name` is the layer's own name in the checkpoint."""
        return {f"{name}.weight": Destination(self.weight)}

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., size]."""
        if x.device.type == "cpu":
            return self._forward_cpu(x)
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.eps)

    def add_and_norm(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Add x to `residual` in place; returns (normalised sum, sum), each of x's shape."""
        residual.add_(x)
        return self(residual), residual

    def _forward_cpu(self, x: Tensor) -> Tensor:
        # torch has no fused kernel on CPUs: the norm as one reduction passes over x less often
        # than the composite of square, mean and product
        precise = x.float()
        scale = torch.linalg.vector_norm(precise, dim=-1, keepdim=True)
        scale = scale.mul_(scale).mul_(1.0 / x.shape[-1]).add_(self.eps).rsqrt_()
        return (precise * scale).mul_(self.weight).to(x.dtype)
