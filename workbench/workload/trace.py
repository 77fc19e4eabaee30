"""What all trace workloads share: finding the file, order, window, scaling, number of requests.

A reader turns its file into `RequestColumns` in trace time; this file turns those into a workload.
It knows nothing of file formats.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from workbench.errors import WorkloadError
from workbench.workload.base import OpenLoopWorkload, RequestColumns
from workbench.workload.block_ids import first_unchained_row
from workbench.workload.bounds import check_integer, check_number, check_times
from workbench.workload.trace_file import TraceTable

FETCH = "fetch it with `python -m experiments.fetch_traces --out DIR` and set traces_dir=DIR"
FROM_START = "give arrivals in seconds since the start of the trace"
FASTER = "raise workload.rate_scale"


class TraceWorkload(OpenLoopWorkload, ABC):
    """The requests of a trace file, replayed at their own times.

    `path`: the file; a relative one lies in `traces_dir`, if that is given.
    `rate_scale`: arrivals come this many times as fast (deadlines keep their distance to them).
    `start`, `duration` [s of trace time]: only requests in this window, which becomes time 0.
    `max_requests`: at most so many, from the window's begin.
    `sort`: put rows in order of time; else unsorted rows are an error.
    Attribute `num_skipped`: rows the reader left out (see there).
    """

    hint: ClassVar[str] = "name an existing file with workload.path=FILE"

    def __init__(
        self,
        path: str,
        *,
        traces_dir: str | None = None,
        rate_scale: float = 1.0,
        max_requests: int | None = None,
        start: float = 0.0,
        duration: float | None = None,
        sort: bool = False,
    ) -> None:
        check_number("rate_scale", rate_scale, above=0)
        self.num_skipped = 0
        file = find_trace(path, traces_dir)
        columns, lines = self.read(file)
        check_times(f"{file}: a request arrives at", columns.arrival_times, FROM_START)
        columns = _in_order(columns, lines, file, sort)
        columns = _window(columns, file, start, duration, max_requests)
        with np.errstate(over="ignore"):
            times = (columns.arrival_times - start) / rate_scale
        check_times(f"with rate_scale={rate_scale:g}, a request arrives at", times, FASTER)
        deadlines = columns.deadlines
        if deadlines is not None:
            deadlines = deadlines + (times - columns.arrival_times)
        super().__init__(replace(columns, arrival_times=times, deadlines=deadlines))

    @abstractmethod
    def read(self, path: Path) -> tuple[RequestColumns, Sequence[int]]:
        """The requests of the file, in its order and trace time, and the line of each."""


def find_trace(path: str | None, traces_dir: str | None) -> Path:
    """The path of a trace file: relative ones lie in `traces_dir`, if that is given."""
    if path is None or not str(path):
        raise WorkloadError("path is not set; name the trace file with workload.path=FILE")
    if traces_dir is None:
        return Path(path).expanduser()
    return Path(traces_dir).expanduser() / Path(path).expanduser()


def _in_order(
    columns: RequestColumns, lines: Sequence[int], path: Path, sort: bool
) -> RequestColumns:
    times = columns.arrival_times
    backwards = np.flatnonzero(np.diff(times) < 0)
    if backwards.size == 0:
        return columns
    if sort:
        return columns.take(np.argsort(times, kind="stable"))
    row = int(backwards[0])
    raise WorkloadError(
        f"{path}, line {lines[row + 1]}: the arrival at {times[row + 1]:.6f} s is before the one "
        f"on line {lines[row]} at {times[row]:.6f} s; sort the file or set workload.sort=true"
    )


def _window(
    columns: RequestColumns,
    path: Path,
    start: float,
    duration: float | None,
    max_requests: int | None,
) -> RequestColumns:
    check_number("start", start, at_least=0)
    times = columns.arrival_times
    first = int(np.searchsorted(times, start, side="left"))
    last = len(times)
    if duration is not None:
        check_number("duration", duration, above=0)
        last = int(np.searchsorted(times, start + duration, side="left"))
    if max_requests is not None:
        last = min(last, first + check_integer("max_requests", max_requests, at_least=1))
    if first >= last:
        end = "the end" if duration is None else f"{start + duration:g} s"
        raise WorkloadError(
            f"{path} has no request from {start:g} s to {end}, its requests arrive from "
            f"{times[0]:g} s to {times[-1]:g} s; change workload.start or workload.duration"
        )
    if first == 0 and last == len(times):
        return columns
    return columns.take(np.arange(first, last, dtype=np.int64))


def check_hash_ids(
    table: TraceTable,
    name: str,
    ids_of_rows: Sequence[Sequence[int]],
    num_tokens: np.ndarray[tuple[int], np.dtype[np.int64]],
    block_size: int,
) -> None:
    """Raise a WorkloadError unless the ids fit the token counts and are chained.

    One id per `block_size` tokens; a last, partly filled block may have one or not.
    """
    counts = np.fromiter(map(len, ids_of_rows), np.int64, len(ids_of_rows))
    full, ceiling = num_tokens // block_size, -(-num_tokens // block_size)
    bad = (counts < full) | (counts > ceiling)
    if bad.any():
        row = int(np.argmax(bad))
        table.fail(
            row,
            f"{name} has {counts[row]} ids, but {num_tokens[row]} tokens in blocks of {block_size} "
            f"make {full[row]} to {ceiling[row]}; correct the row or the block size",
        )
    for row, ids in enumerate(ids_of_rows):
        if not set(map(type, ids)) <= {int}:
            wrong = next(block for block in ids if type(block) is not int)
            table.fail(row, f"{name} holds {wrong!r}, but ids are whole numbers; correct the row")
    try:
        unchained = first_unchained_row(ids_of_rows)
    except OverflowError:
        raise WorkloadError(f"{table.path}: an id in {name} exceeds 64 bits; renumber") from None
    if unchained is not None:
        row, block = unchained
        table.fail(
            row,
            f"id {block} of {name} follows another id than where it stands first; ids must name "
            "a block with all before it: give each prefix its own ids",
        )
