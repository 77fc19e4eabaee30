"""Attention of single queries whose values are summed where they lie, in their pages.

A weighted sum of rows of a table is what `embedding_bag` computes, so with attention's weights as
the weights and the cache as the table no value is gathered. The keys still are: their products with
the query need them side by side. Knows one bucket of decodes; does not know how it was chosen.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine.attention.backend import AttentionSpec


@dataclass(frozen=True, slots=True)
class ValueBags:
    """Which vectors of the value cache each head of each row sums.

    Attributes:
        vectors: [rows * heads * keys] indices into the cache as vectors of head_dim.
        starts: [rows * heads] where each bag begins.
    """

    vectors: Tensor
    starts: Tensor

    @classmethod
    def of(
        cls, pages: Tensor, num_rows: int, num_kv_heads: int, block_size: int, group_size: int
    ) -> "ValueBags":
        """The bags of a bucket.

        Args:
            pages: [rows * kv_heads * width] indices into the cache as pages of one head.
            num_rows, num_kv_heads, block_size: Of the bucket and its cache.
            group_size: Query heads of each KV head.
        """
        pages = pages.int().view(num_rows * num_kv_heads, 1, -1, 1)
        within = torch.arange(block_size, dtype=torch.int32)
        vectors = (pages * block_size + within).expand(-1, group_size, -1, -1)
        num_bags, num_keys = num_rows * num_kv_heads * group_size, pages.shape[2] * block_size
        starts = torch.arange(0, num_bags * num_keys, num_keys, dtype=torch.int32)
        return cls(vectors.reshape(-1), starts)

    def attend(
        self, q: Tensor, k: Tensor, values: Tensor, bias: Tensor | None, spec: AttentionSpec
    ) -> Tensor:
        """Attention of one query a row.

        Args:
            q: [rows, kv_heads, group, head_dim] float32.
            k: [rows, kv_heads, keys, head_dim].
            values: The value cache, contiguous.
            bias: [rows, 1, 1, keys], added to the scores.
            spec: Of the layer.

        Returns:
            [rows, kv_heads, group, head_dim].
        """
        scores = torch.matmul(q, k.transpose(-1, -2)).mul_(spec.scale)
        if spec.softcap:
            scores.div_(spec.softcap).tanh_().mul_(spec.softcap)
        if bias is not None:
            scores.add_(bias)
        weights = scores.softmax(dim=-1)
        summed = functional.embedding_bag(
            self.vectors,
            values.view(-1, values.shape[-1]),
            self.starts,
            mode="sum",
            per_sample_weights=weights.view(-1),
        )
        return summed.view(q.shape)
