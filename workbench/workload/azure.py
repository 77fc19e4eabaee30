"""Reader of the Azure LLM inference traces (2023, and the same columns of 2024).

Source: https://github.com/Azure/AzurePublicDataset (CC-BY-4.0). Columns TIMESTAMP, ContextTokens,
GeneratedTokens. The trace says nothing of sharing, sessions or clients.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from workbench.workload.base import RequestColumns
from workbench.workload.trace import FETCH, TraceWorkload
from workbench.workload.trace_file import TraceTable, read_csv

_SHORTEST = len("2023-11-16 18:15:46")


class AzureTrace(TraceWorkload):
    """An Azure LLM trace; arrivals are seconds since its earliest row."""

    hint: ClassVar[str] = FETCH

    def read(self, path: Path) -> tuple[RequestColumns, Sequence[int]]:
        needed = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
        table = read_csv(path, needed, (), self.hint)
        columns = RequestColumns(
            arrival_times=_seconds(table),
            num_prompt_tokens=table.token_counts("ContextTokens"),
            num_output_tokens=table.token_counts("GeneratedTokens"),
        )
        return columns, table.lines


def _seconds(table: TraceTable) -> NDArray[np.float64]:
    """Seconds since the earliest time stamp; exact to 100 ns, as the trace is."""
    values = [value.removesuffix("+00:00") for value in table.columns["TIMESTAMP"]]
    try:
        stamps = _parse(values)
    except ValueError:
        row = next(i for i, value in enumerate(values) if not _is_stamp(value))
        table.fail(
            row,
            f"TIMESTAMP is {values[row]!r}, but it must be like '2023-11-16 18:15:46.6805900' "
            "(UTC); correct the row",
        )
    nanoseconds = stamps.astype(np.int64)
    seconds: NDArray[np.float64] = (nanoseconds - nanoseconds.min()) / 1e9
    return seconds


def _parse(values: list[str]) -> NDArray[np.datetime64]:
    # numpy also takes shorter forms, such as a year or "now"
    if min(map(len, values)) < _SHORTEST or not all(value[-1].isdigit() for value in values):
        raise ValueError("not a full time stamp")
    return np.array(values, dtype="datetime64[ns]")


def _is_stamp(value: str) -> bool:
    try:
        _parse([value])
    except ValueError:
        return False
    return True
