"""Attention of one layer from measured tables that correct the analytic formula.

Knows three grids: prompt chunks alone, decode rows alone, and both in one batch. A batch that is
not on the grid keeps its own shape in the formula; the correction is looked up at its total chunk,
the token-weighted context of the chunks, the number of decode rows and their mean context.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.cost_models.attention import Attention, AttentionRoofline, Chunks
from simulator.cost_models.base import refuse_far
from simulator.cost_models.grid import Array, CorrectionGrid

CURE = "shorten the requests (scheduler.max_model_len) or use cost_model=roofline"
_NAMES = ("prompt chunk", "context", "decode rows", "mean context")


class AttentionGrids(NamedTuple):
    """Measured / formula over the axes of their kind of batch; None where none was measured.

    The axes are those of `measure`: (chunk, kv_prefill), (n_decode, kv_decode), and all four.
    """

    prefill: CorrectionGrid | None
    decode: CorrectionGrid | None
    mixed: CorrectionGrid | None

    @classmethod
    def measure(
        cls,
        formula: AttentionRoofline,
        chunk: Array,
        kv_prefill: Array,
        n_decode: Array,
        kv_decode: Array,
        seconds: Array,
    ) -> "AttentionGrids":
        """Grids from the columns of a table.

        Args:
            formula: Of the attention that was measured.
            chunk, kv_prefill, n_decode, kv_decode: Tokens of one prompt chunk and of its cached
                context, decode rows and the context of each.
            seconds: Measured times.
        """
        predicted = [
            formula.time(int(n), int(n * kd), [(int(q), int(kp))] if q else [])
            for q, kp, n, kd in zip(chunk, kv_prefill, n_decode, kv_decode, strict=True)
        ]
        table = np.stack([chunk, kv_prefill, n_decode, kv_decode], axis=1)
        some = (chunk > 0) | (n_decode > 0)
        corrections = np.divide(seconds, predicted, out=np.ones_like(seconds), where=some)

        def grid(rows: NDArray[np.bool_], columns: list[int]) -> CorrectionGrid | None:
            if not rows.any():
                return None
            return CorrectionGrid(table[rows][:, columns], corrections[rows])

        return cls(
            grid((chunk > 0) & (n_decode == 0), [0, 1]),
            grid((chunk == 0) & (n_decode > 0), [2, 3]),
            grid((chunk > 0) & (n_decode > 0), [0, 1, 2, 3]),
        )


class AttentionTable(Attention):
    """Measured attention of one layer.

    Args:
        formula: Of the attention that is priced.
        grids: Its corrections.
        measured_window: Window of the attention that was measured. A batch with another window is
            looked up where its rows see as many keys.
    """

    is_bounded = True

    def __init__(
        self,
        formula: AttentionRoofline,
        grids: AttentionGrids,
        measured_window: int | None = None,
    ) -> None:
        self._formula = formula
        self._grids = grids
        self._clip = formula.window if formula.window != measured_window else None

    def time(self, num_decodes: int, decode_context: int, prefills: Chunks) -> float:
        seconds = self._formula.time(num_decodes, decode_context, prefills)
        grid, at = self._place(num_decodes, decode_context, prefills)
        if grid is None:
            return seconds
        if not grid.is_inside(*at):
            names = _NAMES if len(at) == 4 else _NAMES[:2] if prefills else _NAMES[2:]
            for name, value, largest in zip(names, at, grid.largest, strict=True):
                refuse_far(f"attention with a {name}", value, largest, CURE)
        return seconds * grid(*at)

    def is_extrapolated(self, num_decodes: int, decode_context: int, prefills: Chunks) -> bool:
        grid, at = self._place(num_decodes, decode_context, prefills)
        return grid is not None and not grid.is_inside(*at)

    def _place(
        self, num_decodes: int, decode_context: int, prefills: Chunks
    ) -> tuple[CorrectionGrid | None, tuple[float, ...]]:
        """The grid that knows such a batch, and where in it."""
        clip = self._clip
        mean = decode_context / num_decodes if num_decodes else 0.0
        if clip is not None:
            mean = min(mean, clip)
        if not prefills:
            return (self._grids.decode if num_decodes else None), (num_decodes, mean)
        chunk = weighted = 0
        for query, context in prefills:
            chunk += query
            weighted += query * (context if clip is None else min(context, clip))
        cached = weighted / chunk
        if num_decodes and self._grids.mixed is not None:
            return self._grids.mixed, (chunk, cached, num_decodes, mean)
        return self._grids.prefill, (chunk, cached)
