"""Host memory that keeps the KV of preempted requests (preemption by swapping).

It hands out host blocks and writes the copies into the step's output; what a copy costs is the
world's business.
"""

from workbench.outputs import BlockCopy, SchedulerOutput
from workbench.request import Request


class HostCache:
    """Host blocks of one replica.

    Args:
        num_blocks: Host blocks of the size of a device block.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._blocks_of: dict[Request, list[int]] = {}

    @property
    def num_free_blocks(self) -> int:
        """Host blocks not in use."""
        return len(self._free)

    def swap_out(self, request: Request, output: SchedulerOutput) -> bool:
        """Order the copy of a request's blocks to the host; False, nothing done, if it is full."""
        table = request.block_ids[0] if request.block_ids else []
        if not table or len(table) > len(self._free):
            return False
        blocks = [self._free.pop() for _ in table]
        self._blocks_of[request] = blocks
        output.swap_out.append(BlockCopy(request.request_id, tuple(table), tuple(blocks)))
        return True

    def swap_in(self, request: Request, num_hit_blocks: int, output: SchedulerOutput) -> None:
        """Order the copy back of all blocks that the prefix cache did not spare."""
        host = self._blocks_of[request][num_hit_blocks:]
        device = request.block_ids[0][num_hit_blocks : num_hit_blocks + len(host)]
        output.swap_in.append(BlockCopy(request.request_id, tuple(device), tuple(host)))
        self.free(request)

    def free(self, request: Request) -> None:
        """Give back a request's host blocks, if it has any."""
        self._free.extend(self._blocks_of.pop(request, ()))
        request.num_swapped_tokens = 0

    def check_integrity(self) -> None:
        """Raise AssertionError unless every host block is free or used exactly once."""
        used = [block for blocks in self._blocks_of.values() for block in blocks]
        assert sorted([*self._free, *used]) == list(range(self.num_blocks)), "host block lost"
