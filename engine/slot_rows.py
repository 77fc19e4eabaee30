"""One row of a matrix on the device for each slot that needs one.

A matrix over max_num_seqs slots and the vocabulary is large, and most requests never ask for
one: rows are handed out to the slots that do, and the matrix grows when they run out. Row 0 is
nobody's: slots without a row point at it. What the rows hold is their owner's affair.
"""

import numpy as np
import torch
from torch import Tensor

FIRST_ROWS = 4


class SlotRows:
    """Hands out rows.

    Args:
        max_num_seqs: Slots.
        widths: Columns of each of the matrices that share the rows.
        dtypes: Their types.
        fills: What a row that is handed out holds.
        device: Where the matrices live.

    Attributes:
        matrices: [rows, width] tensors.
        row_of: [slots] int64 numpy, 0 for slots without a row.
    """

    def __init__(
        self,
        max_num_seqs: int,
        widths: tuple[int, ...],
        dtypes: tuple[torch.dtype, ...],
        fills: tuple[float, ...],
        device: torch.device,
    ) -> None:
        self._device = device
        self._fills = fills
        self.matrices = [
            torch.full((1, width), fill, dtype=dtype, device=device)
            for width, dtype, fill in zip(widths, dtypes, fills, strict=True)
        ]
        self.row_of = np.zeros(max_num_seqs, dtype=np.int64)
        self._row_of_device = to_device(self.row_of.copy(), device)
        self._is_stale = False
        self._free: list[int] = []

    def take(self, slot: int) -> int:
        """Give a slot a row, filled; the row."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        for matrix, fill in zip(self.matrices, self._fills, strict=True):
            matrix[row].fill_(fill)
        self.row_of[slot] = row
        self._is_stale = True
        return row

    def give_back(self, slot: int) -> None:
        """Take a slot's row back, if it has one."""
        row = int(self.row_of[slot])
        if row:
            self._free.append(row)
            self.row_of[slot] = 0
            self._is_stale = True

    def rows_of(self, slots: Tensor) -> Tensor:
        """Rows of slots [N] that the device holds; it is not waited for."""
        if self._is_stale:
            self._row_of_device = to_device(self.row_of.copy(), self._device)
            self._is_stale = False
        return self._row_of_device[slots]

    def _grow(self) -> None:
        num_rows = len(self.matrices[0])
        num_new = max(FIRST_ROWS, num_rows)
        for i, (matrix, fill) in enumerate(zip(self.matrices, self._fills, strict=True)):
            new = matrix.new_full((num_new, matrix.shape[1]), fill)
            self.matrices[i] = torch.cat((matrix, new))
        self._free = list(range(num_rows + num_new - 1, num_rows - 1, -1))


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor; to a GPU it travels asynchronously, from memory of its own.

    On a CPU the tensor shares the array's memory.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
