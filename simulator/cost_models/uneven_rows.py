"""What decode attention takes longer because its rows are of unequal length.

Knows how FlashAttention 2 lays decode rows out. It does not know how long equal rows take: an
attention model says that, and this adds the end of the longest row.

A block of threads walks over all keys of one row and one group of heads that share keys, and each
multiprocessor has place for one block. While all places are taken, memory limits the walks. At the
end the longest row is alone, and the arithmetic of its tile of `attention_tile_rows` rows on one
multiprocessor limits it. Blocks start head by head and, within, row by row, so the last block of
the longest row starts late: with the row in the middle of the batch, while

    mean x (1 + rows / (2 x multiprocessors))

keys a row are still to be walked. It has walked as many when the others are through; what is left
of it is walked alone.

Where there are fewer than 0.8 blocks for two places a multiprocessor, kernels split rows into parts
that balance. But a captured graph has chosen its parts for the longest request that the server
admits (`captured_len`): a part is then longer than most requests, and nothing is split. Blocks then
start row by row, all heads of a row together.

Beside a prompt chunk no row is split. There, too, the chunk's own walk covers as many keys.

FlashAttention 3 and decode kernels of their own balance rows (`packs_query_heads`): nothing is
added. Nothing here was fitted. Against measured batches in which one to four rows are four times as
long as the others (64 to 256 rows; RTX 4090 and RTX PRO 6000; LLMServingSim's sweep, MIT) the error
of the time falls from -9 to -12 % to 2 %, and beside chunks from -6 to -9 % to within 2 %.
"""

from math import ceil

from simulator.cost_models.attention import AttentionHeads, Chunks
from simulator.cost_models.kernel_constants import KernelConstants
from simulator.hardware import HardwareConfig

KEYS_A_BLOCK = 128  # keys that a walk takes at a time, with heads of up to 128
MOST_SPLITS = 128
ENOUGH = 0.8  # of two blocks a multiprocessor: nothing is split
GOOD_ENOUGH = 0.85  # of the best balance: the fewest parts that reach it are taken
MIDDLE = 0.5  # place of the longest row in the batch, which nobody knows


class UnevenRows:
    """Adds the longest decode row's share to the time of equal rows.

    Args:
        heads: Of one layer on one GPU.
        hardware, constants: Peaks and the shares of them that prompt attention reaches.
        window: Tokens that a query sees; None: all before it.
        captured_len: Keys that decode kernels were captured for in graphs; None: they see the real
            lengths.
    """

    def __init__(
        self,
        heads: AttentionHeads,
        hardware: HardwareConfig,
        constants: KernelConstants,
        window: int | None = None,
        captured_len: int | None = None,
    ) -> None:
        rate = hardware.peak_flops(heads.dtype) * constants.attention_compute / hardware.num_sms
        self._key = 4 * constants.attention_tile_rows * heads.head_dim / rate
        self._balances = constants.packs_query_heads
        self._heads, self._kv_heads = heads.heads, heads.kv_heads
        self._num_sms = hardware.num_sms
        self._window = window
        self._captured_len = captured_len
        self._parts: dict[int, int] = {}

    def time(
        self, even: float, num_decodes: int, decode_context: int, prefills: Chunks, longest: int
    ) -> float:
        """Seconds of one layer's attention.

        Args:
            even: Seconds if all decode rows had the mean context.
            num_decodes, decode_context, prefills: The batch, as Attention takes it.
            longest: Keys that the longest decode row reads.
        """
        if self._balances or not num_decodes:
            return even
        mean = decode_context / num_decodes
        if self._window is not None:
            longest, mean = min(longest, self._window), min(mean, self._window)
        rows_per_sm = num_decodes / self._num_sms
        if prefills:
            walked = mean * (1.0 + MIDDLE * rows_per_sm)
            chunk = max(query + context for query, context in prefills)
            return even + max(0.0, longest - max(walked, chunk)) * self._key
        blocks_per_sm = rows_per_sm * self._kv_heads
        if blocks_per_sm >= ENOUGH * 2:
            walked = mean * (1.0 + MIDDLE * rows_per_sm)
            return even + max(0.0, longest - walked) * self._key
        if self._captured_len is None:
            return even
        part = min(longest, self._part(num_decodes))
        seconds = max(even, part * self._key)
        if blocks_per_sm > 1.0:
            walked = mean * (1.0 + MIDDLE * blocks_per_sm)
            seconds = max(seconds, even + (part - walked) * self._key)
        return seconds

    def _part(self, num_decodes: int) -> int:
        """Keys of one part of a row, as a graph of so many rows was captured."""
        part = self._parts.get(num_decodes)
        if part is None:
            blocks = ceil((self._captured_len or 1) / KEYS_A_BLOCK)
            num = num_splits(num_decodes * self._kv_heads, 2 * self._num_sms, blocks)
            part = self._parts[num_decodes] = ceil(blocks / num) * KEYS_A_BLOCK
        return part


def num_splits(num_blocks: int, num_places: int, num_key_blocks: int) -> int:
    """Parts of a row: the fewest whose waves fill the places nearly as well as the best number's.

    Args:
        num_blocks: Thread blocks without splitting.
        num_places: Blocks that run at once.
        num_key_blocks: Blocks of keys of a row; a number of parts that leaves the longest part as
            long as one part fewer is passed over.
    """
    if num_blocks >= ENOUGH * num_places:
        return 1
    fills = {}
    for parts in range(1, min(MOST_SPLITS, num_places, num_key_blocks) + 1):
        if parts == 1 or ceil(num_key_blocks / parts) != ceil(num_key_blocks / (parts - 1)):
            waves = num_blocks * parts / num_places
            fills[parts] = waves / ceil(waves)
    best = max(fills.values())
    return next(parts for parts, fill in fills.items() if fill >= GOOD_ENOUGH * best)
