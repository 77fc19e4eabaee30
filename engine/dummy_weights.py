"""Random weights at full shape, for measurements that need no real model.

Knows which parameters are norms and which are matrices, by their number of dimensions. The same
seed gives the same weights on every device.
"""

import torch
from torch import Tensor, nn

# Random numbers are drawn for this many elements and repeated: drawing all of an 8B model takes a
# CPU minutes. A prime, so that no two rows of a matrix are equal.
TILE = 1_048_573


def fill_randomly(model: nn.Module, seed: int) -> None:
    """Fill all parameters: norms with 1, biases with 0, matrices with noise of variance 1/fan-in.

    With this variance activations keep their size from layer to layer, so logits stay finite in
    float16 too.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim == 1:
            parameter.fill_(1.0)
        else:
            _fill(parameter, generator)


def _fill(matrix: Tensor, generator: torch.Generator) -> None:
    bound = (3.0 / matrix.shape[-1]) ** 0.5
    flat = matrix.view(-1)
    tile = torch.empty(min(TILE, len(flat))).uniform_(-bound, bound, generator=generator)
    tile = tile.to(matrix.dtype).to(matrix.device)
    whole = len(flat) // len(tile)
    flat[: whole * len(tile)].view(whole, -1).copy_(tile.expand(whole, -1))
    rest = flat[whole * len(tile) :]
    rest.copy_(tile[: len(rest)])
