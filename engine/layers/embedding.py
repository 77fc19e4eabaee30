"""Token embeddings, and the projection back onto the vocabulary."""

from torch import Tensor, nn
from torch.nn import functional

from engine.layers.weights import Destination, Destinations, Placement


class Embedding(nn.Module):
    """A table [vocab_size, hidden_size] that can also project hidden states onto the vocabulary."""

    def __init__(self, vocab_size: int, hidden_size: int, placement: Placement) -> None:
        super().__init__()
        self.weight = placement.empty(vocab_size, hidden_size)

    def destinations(self, name: str) -> Destinations:
        """The view of the table; `name` is the layer's own name in the checkpoint."""
        return {f"{name}.weight": Destination(self.weight)}

    def forward(self, token_ids: Tensor) -> Tensor:
        """Rows of token_ids [T] int64; returns [T, hidden_size]."""
        return functional.embedding(token_ids, self.weight)
