"""A linear layer whose weight may be several checkpoint matrices, stacked.

Knows how the parts lie in the fused weight, and that a CPU wants it packed. Does not know what the
parts are for.
"""

from torch import Tensor, nn
from torch.nn import functional

from engine.layers.packed_weight import PackedWeight, pack, without_values
from engine.layers.weights import Destination, Destinations, Placement


class Linear(nn.Module):
    """y = x Wᵀ + b, with W [sum of part sizes, in_features] stacked from named parts."""

    def __init__(
        self, in_features: int, parts: dict[str, int], bias: bool, placement: Placement
    ) -> None:
        """Allocate the fused weight.

        Args:
            in_features: width of the input.
            parts: output width of each part by its name in the checkpoint, in the order stacked.
            bias: whether every part has a bias.
            placement: dtype and device.
        """
        super().__init__()
        out_features = sum(parts.values())
        self.parts = parts
        self.weight = placement.empty(out_features, in_features)
        self.bias = placement.empty(out_features) if bias else None
        self._packed: PackedWeight | None = None

    def destinations(self, prefix: str) -> Destinations:
        """Views of the parts by checkpoint name.

        `prefix` names what holds the parts, "" for the checkpoint itself.
        """
        sizes, dot = list(self.parts.values()), "." if prefix else ""
        names = [f"{prefix}{dot}{part}" for part in self.parts]
        weights = zip(names, self.weight.split(sizes), strict=True)
        found = {f"{name}.weight": Destination(view) for name, view in weights}
        if self.bias is not None:
            biases = zip(names, self.bias.split(sizes), strict=True)
            found |= {f"{name}.bias": Destination(view) for name, view in biases}
        return found

    def finalize(self) -> None:
        """Called once, when all weights are in place: packs the weight where that is faster.

        `weight` then keeps its shape and dtype but no values; a table that is shared with the
        layer keeps its own.
        """
        self._packed = pack(self.weight)
        if self._packed is not None:
            self.weight = without_values(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x [T, in_features]; returns [T, out_features]."""
        if self._packed is not None:
            return self._packed.linear(x, self.bias)
        return functional.linear(x, self.weight, self.bias)
