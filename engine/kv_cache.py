"""The tensors of the KV cache: their shape, their bytes, and the copy kept on the host.

Layers of different KV-cache groups use disjoint blocks of one pool, so the n-th layer of every
group shares a tensor. Knows no request and no policy; how many blocks there are is decided
elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor

from engine.attention.backend import AttentionSpec
from engine.errors import OutOfMemoryError
from engine.loader import is_out_of_memory
from workbench.config import CacheConfig
from workbench.errors import ConfigError

GIB = 1 << 30
FP8 = torch.float8_e4m3fn


@dataclass(frozen=True, slots=True)
class KVCacheLayout:
    """Which tensor each layer uses, and what a block costs.

    Attributes:
        tensor_of_layer: Index of the tensor, by layer.
        num_kv_heads, head_dim: Of every layer.
        block_size: Tokens a block.
        dtype: Of keys and values.
    """

    tensor_of_layer: tuple[int, ...]
    num_kv_heads: int
    head_dim: int
    block_size: int
    dtype: torch.dtype

    @classmethod
    def of(
        cls, specs: Sequence[AttentionSpec], block_size: int, dtype: torch.dtype
    ) -> "KVCacheLayout":
        """The layout for a model's layers.

        Raises:
            ConfigError: The layers' keys differ in shape.
        """
        shapes = {(spec.num_kv_heads, spec.head_dim) for spec in specs}
        if len(shapes) != 1:
            raise ConfigError(
                f"layers with keys of the shapes {sorted(shapes)} cannot share KV blocks: only "
                "models with one (num_kv_heads, head_dim) are supported"
            )
        next_of_group = {spec.group: count() for spec in specs}
        tensors = tuple(next(next_of_group[spec.group]) for spec in specs)
        return cls(tensors, *shapes.pop(), block_size, dtype)

    @property
    def num_tensors(self) -> int:
        """Tensors of a cache."""
        return max(self.tensor_of_layer) + 1

    @property
    def block_bytes(self) -> int:
        """Bytes of a block in all tensors: keys and values."""
        page = self.num_kv_heads * self.block_size * self.head_dim * self.dtype.itemsize
        return 2 * page * self.num_tensors

    def allocate(self, num_blocks: int, device: torch.device, pin: bool = False) -> list[Tensor]:
        """Zeroed tensors [2, num_blocks, num_kv_heads, block_size, head_dim], one an index.

        Raises:
            OutOfMemoryError: They do not fit.
        """
        shape = (2, num_blocks, self.num_kv_heads, self.block_size, self.head_dim)
        try:
            return [
                torch.zeros(shape, dtype=self.dtype, device=device, pin_memory=pin)
                for _ in range(self.num_tensors)
            ]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"the KV cache of {num_blocks} blocks needs "
                f"{num_blocks * self.block_bytes / GIB:.1f} GiB on {device}: lower "
                "num_gpu_blocks_override, kv_cache_memory_bytes or gpu_memory_utilization"
            ) from error

    def by_layer(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensor of each layer."""
        return [tensors[index] for index in self.tensor_of_layer]


def assign_groups(
    specs: Sequence[AttentionSpec], cache_config: CacheConfig, preemption_mode: str
) -> tuple[list[AttentionSpec], CacheConfig]:
    """Which layers give up the blocks that have left their window, and the config that says so.

    All layers slide: one group with a window. Some do: a second group, with a window. Under
    preemption by swapping all layers keep all blocks, since a swapped table must be whole; the
    windows then hold in attention only.

    Raises:
        ConfigError: The config asks for windows that the model does not have.
    """
    windows = {spec.sliding_window for spec in specs}
    if len(windows - {None}) > 1:
        raise ConfigError(
            f"sliding windows of {sorted(w for w in windows if w)} tokens in one model: only one "
            "window size is supported"
        )
    window = max((w for w in windows if w is not None), default=None)
    has_full_layers = None in windows
    actual = replace(
        cache_config,
        sliding_window=None if has_full_layers else window,
        hybrid_window=window if has_full_layers else None,
    )
    for name in ("sliding_window", "hybrid_window"):
        asked, has = getattr(cache_config, name), getattr(actual, name)
        if asked is not None and asked != has:
            raise ConfigError(f"{name}={asked}, but the model's is {has}: leave it unset")
    if preemption_mode == "swap":
        actual = replace(actual, sliding_window=None, hybrid_window=None)
    is_hybrid = actual.hybrid_window is not None
    groups = [int(is_hybrid and spec.sliding_window is not None) for spec in specs]
    return [replace(s, group=g) for s, g in zip(specs, groups, strict=True)], actual
