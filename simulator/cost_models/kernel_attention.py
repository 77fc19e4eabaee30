"""Attention of one layer from tables of attention kernels, which correct the analytic formula.

Knows two grids: prompts (number, mean length) and decode rows (number, mean context). The tables
hold no batch of both: there the formula knows how the two mix, and is corrected as the two are.
"""

from collections.abc import Callable
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simulator.cost_models.attention import (
    Attention,
    AttentionHeads,
    AttentionRoofline,
    Chunks,
)
from simulator.cost_models.attention_table import CURE
from simulator.cost_models.base import refuse_far
from simulator.cost_models.grid import Array, CorrectionGrid
from simulator.cost_models.table_files import read_parquet, read_times
from workbench.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

_HEADS = ("num_heads", "num_key_value_heads", "head_dim")
MakeFormula = Callable[[AttentionHeads], AttentionRoofline]


class KernelAttention(Attention):
    """Attention corrected by kernel tables.

    Args:
        formula: Of the attention that is priced.
        context, generation: Corrections of prompts and of decode rows, measured without a window. A
            batch with a window is looked up where its rows see as many keys.
    """

    is_bounded = True

    def __init__(
        self, formula: AttentionRoofline, context: CorrectionGrid, generation: CorrectionGrid
    ) -> None:
        self._formula = formula
        self._context, self._generation = context, generation

    def time(self, num_decodes: int, decode_context: int, prefills: Chunks) -> float:
        formula = self._formula
        seconds = formula.time(num_decodes, decode_context, prefills)
        rows = self._correction(self._generation, "decode", num_decodes, decode_context)
        chunks = self._correction(self._context, "prompt", len(prefills), _keys(prefills))
        if not prefills or not num_decodes:
            return seconds * (chunks if prefills else rows)
        decode = formula.decode(num_decodes, decode_context)
        prompt = formula.prefill(prefills)
        return seconds * (rows * decode + chunks * prompt) / (decode + prompt)

    def is_extrapolated(self, num_decodes: int, decode_context: int, prefills: Chunks) -> bool:
        decodes = self._place(num_decodes, decode_context)
        prompts = self._place(len(prefills), _keys(prefills))
        return not (self._generation.is_inside(*decodes) and self._context.is_inside(*prompts))

    def _place(self, rows: int, keys: int) -> tuple[int, float]:
        """Coordinates in a grid: rows, and the mean of what they see."""
        mean = keys / rows if rows else 0.0
        window = self._formula.window
        return rows, mean if window is None else min(mean, window)

    def _correction(self, grid: CorrectionGrid, what: str, rows: int, keys: int) -> float:
        at = self._place(rows, keys)
        if not grid.is_inside(*at):
            refuse_far(f"a number of {what} rows", at[0], grid.largest[0], CURE)
            refuse_far(f"a mean {what} length", at[1], grid.largest[1], CURE)
        return grid(*at)


def context_grid(file: Path, heads: AttentionHeads, formula: MakeFormula) -> CorrectionGrid:
    """Corrections of prompts over (number, tokens of each).

    Args:
        file: Table of context attention; that of the nearest measured head counts is taken.
        heads: Those of the model.
        formula: Makes the formula of any heads, without a window.

    Raises:
        ConfigError: No rows of the KV cache's type, or a time that is none.
    """
    frame, nearest = _nearest(file, heads)
    attention = formula(nearest)
    rows, tokens = _column(frame, "batch_size"), _column(frame, "isl")
    predicted = [
        attention.time(0, 0, [(int(q), 0)] * int(n)) for n, q in zip(rows, tokens, strict=True)
    ]
    seconds = read_times(frame, file)
    return CorrectionGrid(np.stack([rows, tokens], axis=1), seconds / np.asarray(predicted))


def generation_grid(file: Path, heads: AttentionHeads, formula: MakeFormula) -> CorrectionGrid:
    """Corrections of decode rows over (number, keys of each); as `context_grid`."""
    frame, nearest = _nearest(file, heads)
    attention = formula(nearest)
    rows, keys = _column(frame, "batch_size"), _column(frame, "step") + 1
    predicted = [attention.time(int(n), int(n * c), []) for n, c in zip(rows, keys, strict=True)]
    seconds = read_times(frame, file)
    return CorrectionGrid(np.stack([rows, keys], axis=1), seconds / np.asarray(predicted))


def _keys(prefills: Chunks) -> int:
    return sum(query + context for query, context in prefills)


def _column(frame: "pd.DataFrame", name: str) -> Array:
    values: Array = frame[name].to_numpy(dtype=np.float64)
    return values


def _nearest(file: Path, heads: AttentionHeads) -> tuple["pd.DataFrame", AttentionHeads]:
    """Rows of the one measured (heads, kv heads, head size) that is closest in ratio."""
    kv_dtype = "fp8" if heads.kv_dtype == "fp8" else "bfloat16"
    frame = read_parquet(file, ("batch_size", "isl", "step", *_HEADS, "kv_cache_dtype", "latency"))
    frame = frame[frame["kv_cache_dtype"] == kv_dtype]
    if "window_size" in frame:
        frame = frame[frame["window_size"] == 0]
    # heads that do not divide into groups cannot be a model's
    frame = frame[frame["num_heads"] % frame["num_key_value_heads"] == 0]
    if frame.empty:
        raise ConfigError(f"kernel table {file} has no {kv_dtype} rows: set kv_cache_dtype=auto")
    wanted = (heads.heads, heads.kv_heads, heads.head_dim)

    def distance(row: tuple[int, ...]) -> float:
        return sum(abs(log2(value / want)) for value, want in zip(row, wanted, strict=True))

    known = frame[list(_HEADS)].drop_duplicates()
    best = min(known.itertuples(index=False, name=None), key=distance)
    rows = np.ones(len(frame), dtype=bool)
    for name, value in zip(_HEADS, best, strict=True):
        rows &= (frame[name] == value).to_numpy()
    num_heads, kv_heads, head_dim = (int(n) for n in best)
    return frame[rows], AttentionHeads(num_heads, kv_heads, head_dim, kv_dtype=kv_dtype)
