"""Attention of one layer from measured tables that correct the analytic formula.

Knows three grids: prompt chunks alone, decode rows alone, and both in one batch. A batch that is
not on the grid keeps its own shape in the formula; the correction is looked up at its total chunk,
the token-weighted context of the chunks, the number of decode rows and their mean context.
"""

from collections.abc import Sequence

import numpy as np

from simulator.cost_models.attention import AttentionRoofline
from simulator.cost_models.base import refuse_far
from simulator.cost_models.grid import Array, CorrectionGrid

_CURE = "shorten the requests (scheduler.max_model_len) or use cost_model=roofline"


class AttentionTable:
    """Measured attention of one layer.

    Args:
        roofline: The formula that is corrected.
        chunk, kv_prefill, n_decode, kv_decode: Columns of the table: tokens of one prompt chunk
            and of its cached context, decode rows and the context of each.
        seconds: Measured times.

    Attributes:
        outside: Set when a question lay beyond the grid; the reader clears it.
    """

    def __init__(
        self,
        roofline: AttentionRoofline,
        chunk: Array,
        kv_prefill: Array,
        n_decode: Array,
        kv_decode: Array,
        seconds: Array,
    ) -> None:
        self.outside = False
        self._roofline = roofline
        predicted = [
            roofline.time(int(n), int(n * kd), [(int(q), int(kp))] if q else [])
            for q, kp, n, kd in zip(chunk, kv_prefill, n_decode, kv_decode, strict=True)
        ]
        corrections = seconds / np.asarray(predicted)
        table = np.stack([chunk, kv_prefill, n_decode, kv_decode], axis=1)
        only_prefill, only_decode = (chunk > 0) & (n_decode == 0), (chunk == 0) & (n_decode > 0)
        mixed = (chunk > 0) & (n_decode > 0)
        self._prefill = _grid(table, corrections, only_prefill, [0, 1])
        self._decode = _grid(table, corrections, only_decode, [2, 3])
        self._mixed = _grid(table, corrections, mixed, [0, 1, 2, 3])

    def time(
        self, num_decodes: int, decode_context: int, prefills: Sequence[tuple[int, int]]
    ) -> float:
        """Seconds of one layer's attention.

        Raises:
            CostModelError: More than 8 times beyond the grid.
        """
        seconds = self._roofline.time(num_decodes, decode_context, prefills)
        if not prefills:
            if not num_decodes or self._decode is None:
                return seconds
            mean = decode_context / num_decodes
            rows, longest = self._decode.largest
            if num_decodes > rows or mean > longest:
                self._note(("decode rows", num_decodes, rows), ("mean context", mean, longest))
            return seconds * self._decode(num_decodes, mean)
        chunk = weighted = 0
        for query, context in prefills:
            chunk += query
            weighted += query * context
        cached = weighted / chunk
        if not num_decodes or self._mixed is None:
            if self._prefill is None:
                return seconds
            limits = self._prefill.largest
            if chunk > limits[0] or cached > limits[1]:
                self._note(("prompt chunk", chunk, limits[0]), ("context", cached, limits[1]))
            return seconds * self._prefill(chunk, cached)
        mean = decode_context / num_decodes
        if not self._mixed.is_inside(chunk, cached, num_decodes, mean):
            limits = self._mixed.largest
            self._note(
                ("prompt chunk", chunk, limits[0]),
                ("context", cached, limits[1]),
                ("decode rows", num_decodes, limits[2]),
                ("mean context", mean, limits[3]),
            )
        return seconds * self._mixed(chunk, cached, num_decodes, mean)

    def _note(self, *asked: tuple[str, float, float]) -> None:
        self.outside = True
        for what, value, largest in asked:
            refuse_far(f"attention with a {what}", value, largest, _CURE)


def _grid(
    table: Array,
    corrections: Array,
    rows: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    columns: list[int],
) -> CorrectionGrid | None:
    return CorrectionGrid(table[rows][:, columns], corrections[rows]) if rows.any() else None
