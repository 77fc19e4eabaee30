"""Readers of the workbench's own trace format, as CSV or JSON lines.

Columns arrived_at [s], num_prefill_tokens, num_decode_tokens; optional: priority (lower first),
client_id, session_id, deadline [absolute s], hash_ids (chained, one per `hash_block_size` prompt
tokens; in CSV written as 1 2 3 or [1, 2, 3]). An empty field is as if the column were not there.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.workload.base import RequestColumns
from workbench.workload.bounds import check_integer
from workbench.workload.trace import TraceWorkload, check_hash_ids
from workbench.workload.trace_file import TraceTable, list_column, read_csv, read_jsonl

NEEDED = ("arrived_at", "num_prefill_tokens", "num_decode_tokens")
OPTIONAL = ("priority", "client_id", "session_id", "deadline", "hash_ids")

Reader = Callable[[Path, Sequence[str], Sequence[str], str], TraceTable]


class _TableTrace(TraceWorkload):
    _reader: Reader

    def __init__(
        self,
        path: str,
        *,
        hash_block_size: int = 16,
        traces_dir: str | None = None,
        rate_scale: float = 1.0,
        max_requests: int | None = None,
        start: float = 0.0,
        duration: float | None = None,
        sort: bool = False,
    ) -> None:
        self.hash_block_size = check_integer("hash_block_size", hash_block_size, at_least=1)
        super().__init__(
            path,
            traces_dir=traces_dir,
            rate_scale=rate_scale,
            max_requests=max_requests,
            start=start,
            duration=duration,
            sort=sort,
        )

    def read(self, path: Path) -> tuple[RequestColumns, Sequence[int]]:
        table = type(self)._reader(path, NEEDED, OPTIONAL, self.hint)
        arrivals = table.numbers("arrived_at", at_least=0)
        prompts = table.token_counts("num_prefill_tokens")
        hash_ids = None
        if table.has("hash_ids"):
            hash_ids = list_column(table, "hash_ids", _split_ids)
            check_hash_ids(table, "hash_ids", hash_ids, prompts, self.hash_block_size)
        columns = RequestColumns(
            arrival_times=arrivals,
            num_prompt_tokens=prompts,
            num_output_tokens=table.token_counts("num_decode_tokens"),
            hash_ids=hash_ids,
            hash_block_size=self.hash_block_size if hash_ids is not None else 0,
            priorities=_priorities(table),
            client_ids=_names(table, "client_id", "default"),
            session_ids=_names(table, "session_id", None),
            deadlines=_deadlines(table, arrivals),
        )
        return columns, table.lines


class CsvTrace(_TableTrace):
    """A CSV trace in the workbench's own columns."""

    _reader = staticmethod(read_csv)


class JsonlTrace(_TableTrace):
    """A JSON-lines trace in the workbench's own columns."""

    _reader = staticmethod(read_jsonl)


def _split_ids(value: Any) -> Any:
    """Ids written as text in one CSV field; what is no such text is left for the check."""
    if not isinstance(value, str):
        return value
    words = re.split(r"[\s,;]+", value.strip().strip("[]").strip())
    try:
        return [int(word) for word in words if word]
    except ValueError:
        return value


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _priorities(table: TraceTable) -> NDArray[np.int64] | None:
    if not table.has("priority"):
        return None
    values = table.columns["priority"]
    table.columns["priority"] = [0 if _is_empty(value) else value for value in values]
    return table.integers("priority")


def _names(table: TraceTable, name: str, default: str | None) -> list[Any] | None:
    if not table.has(name):
        return None
    return [default if _is_empty(value) else str(value) for value in table.columns[name]]


def _deadlines(table: TraceTable, arrivals: NDArray[np.float64]) -> NDArray[np.float64] | None:
    if not table.has("deadline"):
        return None
    values = table.columns["deadline"]
    present = np.array([not _is_empty(value) for value in values])
    table.columns["deadline"] = [
        value if known else 0.0 for value, known in zip(values, present, strict=True)
    ]
    deadlines = table.numbers("deadline")
    early = present & (deadlines < arrivals)
    if early.any():
        row = int(np.argmax(early))
        table.fail(
            row,
            f"deadline is {values[row]}, but the request arrives at {arrivals[row]} s; "
            "a deadline is absolute, in seconds of the trace: correct the row",
        )
    deadlines[~present] = np.nan
    return deadlines
