"""Which sizes of a step run as captured graphs, and to which one a smaller step is padded.

Knows token counts. It does not know what a step costs.
"""

from bisect import bisect_left
from collections.abc import Sequence

from simulator.bounds import check_count


def usual_sizes(most: int) -> tuple[int, ...]:
    """Sizes up to `most` of which vLLM captures a graph: 1, 2, 4, multiples of 8, of 16 from 256.

    Source: vLLM 0.19, `VllmConfig._set_cudagraph_sizes`.
    """
    sizes = (1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16))
    return tuple(size for size in sizes if size <= most)


class CapturedGraphs:
    """The sizes of which there is a graph.

    Args:
        sizes: Tokens, in any order; empty: every step is launched kernel by kernel.

    Attributes:
        largest: Most tokens of a step that runs as a graph; 0: none does.

    Raises:
        ConfigError: A size that is no whole number of at least 1.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        for size in sizes:
            check_count("cost_model.captured_sizes", size)
        self._sizes = sorted(set(sizes))
        self.largest = self._sizes[-1] if self._sizes else 0

    def padded(self, num_tokens: int) -> int:
        """Tokens that are computed for a step of so many."""
        if not 0 < num_tokens <= self.largest:
            return num_tokens
        return self._sizes[bisect_left(self._sizes, num_tokens)]
