"""The way of a step's small arrays from the host to the device: one copy a step.

Knows memory and streams. Does not know what the arrays mean.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 16


class Transfer:
    """Puts numpy arrays on a device without waiting for it.

    On a CPU the tensors share the arrays' memory. On a GPU the arrays are packed into a pinned
    buffer and travel as one asynchronous copy; a buffer is written again only when its last copy
    is over.

    Args:
        device: Where to.
        num_buffers: Pinned buffers: copies that may be under way at once.
    """

    def __init__(self, device: torch.device, num_buffers: int = 8) -> None:
        self.device = device
        self._is_cpu = device.type == "cpu"
        self._buffers: list[_PinnedBuffer | None] = [None] * num_buffers
        self._next = 0

    def put(self, *arrays: np.ndarray) -> Sequence[Tensor]:
        """The arrays as tensors on the device, in order; on a GPU valid on the current stream."""
        if self._is_cpu:
            return [torch.from_numpy(array) for array in arrays]
        ends = np.cumsum([-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in arrays]).tolist()
        starts = [0, *ends[:-1]]
        staging = self._staging(ends[-1])
        host = staging.host
        for array, start in zip(arrays, starts, strict=True):
            host[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
        packed = torch.empty(ends[-1], dtype=torch.uint8, device=self.device)
        packed.copy_(staging.tensor[: ends[-1]], non_blocking=True)
        staging.copied.record()
        return [
            packed[start : start + array.nbytes].view(torch_dtype(array.dtype)).view(array.shape)
            for array, start in zip(arrays, starts, strict=True)
        ]

    def _staging(self, num_bytes: int) -> "_PinnedBuffer":
        index = self._next
        self._next = (index + 1) % len(self._buffers)
        buffer = self._buffers[index]
        if buffer is not None:
            buffer.copied.synchronize()
        if buffer is None or len(buffer.host) < num_bytes:
            buffer = self._buffers[index] = _PinnedBuffer(2 * num_bytes)
        return buffer


class _PinnedBuffer:
    """Page-locked bytes and the end of the last copy out of them."""

    def __init__(self, num_bytes: int) -> None:
        self.tensor = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        self.host: np.ndarray = self.tensor.numpy()
        self.copied = torch.cuda.Event()


@cache
def torch_dtype(of: np.dtype) -> torch.dtype:
    """torch's name for a type of numpy."""
    return torch.from_numpy(np.empty(0, of)).dtype
