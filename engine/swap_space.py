"""Host memory that keeps the KV blocks of preempted requests, and the copies to and from it.

Knows block numbers. Which request owns them, and when they move, the scheduler has decided.
"""

from collections.abc import Sequence

from torch import Tensor

from engine.errors import OutOfMemoryError
from engine.loader import is_out_of_memory
from kernels.kv_cache.block_copy import CacheBlocks
from workbench.outputs import BlockCopy

GIB = 1 << 30


class SwapSpace:
    """Host blocks beside the device's.

    Args:
        device_tensors: The KV cache, [2, num_blocks, ...] each.
        num_blocks: Host blocks.

    Raises:
        OutOfMemoryError: The host has not that much memory.
    """

    def __init__(self, device_tensors: Sequence[Tensor], num_blocks: int) -> None:
        self._blocks = CacheBlocks(device_tensors)
        num_bytes = num_blocks * self._blocks.num_planes * self._blocks.page_bytes
        try:
            self._host = self._blocks.empty_packed(num_blocks, host=True)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"{num_blocks} swapped blocks need {num_bytes / GIB:.1f} GiB of host memory: lower "
                "swap_space_gib"
            ) from error

    def copy(self, swap_out: Sequence[BlockCopy], swap_in: Sequence[BlockCopy]) -> None:
        """Start the copies of a step; they run before anything that is started after them.

        A request that comes back gives its device blocks a new owner's contents, so victims leave
        first; but where a victim was given the host blocks of one that comes back, that one goes
        before it.
        """
        waiting = list(swap_in)
        for leaving in swap_out:
            taken = set(leaving.host_blocks)
            for coming in list(waiting):
                is_other = coming.request_id != leaving.request_id
                if is_other and not taken.isdisjoint(coming.host_blocks):
                    self._swap_in(coming)
                    waiting.remove(coming)
            self._blocks.swap_out(leaving.device_blocks, self._host, leaving.host_blocks)
        for coming in waiting:
            self._swap_in(coming)

    def _swap_in(self, copy: BlockCopy) -> None:
        self._blocks.swap_in(self._host, copy.host_blocks, copy.device_blocks)
