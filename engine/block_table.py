"""Which physical blocks hold the tokens of each slot's request, on the host and on the device.

One table a KV-cache group. It changes by differences: a row when a request joins, a few ids when it
grows. What stands behind a row's end, or in front of a sliding window, is stale and never read.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.transfer import Transfer


class BlockTable:
    """Block ids [num_slots, max_blocks] int32.

    Args:
        num_slots: Requests that may be in the batch.
        max_blocks: Blocks of the longest request.
        device: Where attention reads; on a CPU the two tables are one.
    """

    def __init__(self, num_slots: int, max_blocks: int, device: torch.device) -> None:
        self.ids = np.zeros((num_slots, max_blocks), dtype=np.int32)
        self._lengths = [0] * num_slots
        self._is_shared = device.type == "cpu"
        if self._is_shared:
            self._device_ids = torch.from_numpy(self.ids)
        else:
            self._device_ids = torch.zeros(num_slots, max_blocks, dtype=torch.int32, device=device)
        self._changed: list[tuple[int, int, int]] = []

    def set_row(self, slot: int, block_ids: Sequence[int]) -> None:
        """Start a row anew."""
        self._lengths[slot] = 0
        self.append(slot, block_ids)

    def append(self, slot: int, block_ids: Sequence[int]) -> None:
        """Lengthen a row."""
        start = self._lengths[slot]
        if len(block_ids) == 1:
            self.ids[slot, start] = block_ids[0]
        else:
            self.ids[slot, start : start + len(block_ids)] = block_ids
        self._lengths[slot] = start + len(block_ids)
        if not self._is_shared:
            self._changed.append((slot, start, len(block_ids)))

    def row(self, slot: int) -> list[int]:
        """The block ids of a slot, stale ones in front of a window included."""
        ids: list[int] = self.ids[slot, : self._lengths[slot]].tolist()
        return ids

    def flush(self, transfer: Transfer) -> None:
        """Bring the device's table up to date, with one small copy."""
        if not self._changed:
            return
        width = self.ids.shape[1]
        places = np.concatenate(
            [np.arange(slot * width + start, slot * width + start + n)
             for slot, start, n in self._changed]
        )  # fmt: skip
        self._changed.clear()
        where, ids = transfer.put(places, self.ids.reshape(-1)[places])
        self._device_ids.view(-1).index_copy_(0, where, ids)

    def rows(self, slots: Tensor, width: int) -> Tensor:
        """The first `width` ids of these slots' rows, [len(slots), width] int32 on the device."""
        return self._device_ids[:, :width].index_select(0, slots)
