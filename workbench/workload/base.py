"""Requests as a workload gives them, and the protocol every workload follows.

Knows the facts of a request that exist before it is served: when it comes, how long it is, what it
shares. Knows nothing of how it is served. Times are seconds since the start of the run.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise, repeat
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from workbench.errors import WorkloadError
from workbench.workload.block_ids import BlockIdColumn
from workbench.workload.bounds import check_times

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
TIME_CURE = "count seconds from the start of the run, or let requests come faster"


@dataclass(frozen=True, slots=True)
class WorkloadRequest:
    """One request before it is served.

    `hash_ids` are chained ids of the prompt's blocks, one per `hash_block_size` tokens (a last,
    partly filled block may have one too): equal ids at index i imply equal ids before i, and mean
    equal tokens. `output_hash_ids` continue them: `hash_ids + output_hash_ids` are the ids of the
    full blocks of prompt + output. A request without tokens and ids shares nothing with others.
    `deadline` is absolute, in seconds since the start of the run; a lower priority goes first.
    """

    request_id: str
    arrival_time: float
    num_prompt_tokens: int
    num_output_tokens: int
    prompt_token_ids: tuple[int, ...] | None = None
    hash_ids: tuple[int, ...] | None = None
    hash_block_size: int = 0
    output_hash_ids: tuple[int, ...] | None = None
    priority: int = 0
    client_id: str = "default"
    session_id: str | None = None
    deadline: float | None = None


@runtime_checkable
class Workload(Protocol):
    """A source of requests."""

    def initial(self) -> Iterable[WorkloadRequest]:
        """Requests that come whatever the server does, in order of arrival; may be lazy."""

    def after_finish(self, request_id: str, now: float) -> Sequence[WorkloadRequest]:
        """Requests set off by the end of `request_id` (however it ended) at `now` [s]."""

    @property
    def num_requests(self) -> int:
        """Requests in all: the initial ones and those that are set off later."""

    @property
    def is_open_loop(self) -> bool:
        """Whether no request is ever set off by the end of another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestColumns:
    """Requests column by column; every column has one entry a request (shape [n]).

    `deadlines` are absolute seconds, NaN where there is none. None stands for a column of defaults.
    """

    arrival_times: FloatArray
    num_prompt_tokens: IntArray
    num_output_tokens: IntArray
    hash_ids: Sequence[tuple[int, ...]] | None = None
    hash_block_size: int = 0
    output_hash_ids: Sequence[tuple[int, ...]] | None = None
    priorities: IntArray | None = None
    client_ids: Sequence[str] | None = None
    session_ids: Sequence[str | None] | None = None
    deadlines: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.arrival_times)

    def take(self, rows: IntArray) -> "RequestColumns":
        """The given rows, in the given order."""
        names = (f.name for f in fields(self) if f.name != "hash_block_size")
        return replace(self, **{name: _take(getattr(self, name), rows) for name in names})

    def requests(self, request_ids: Iterable[str]) -> Iterator[WorkloadRequest]:
        """Make the requests, one at a time, in row order."""
        deadlines: Iterable[float | None] = repeat(None)
        if self.deadlines is not None:
            deadlines = [None if d != d else d for d in self.deadlines.tolist()]
        return map(
            WorkloadRequest,
            request_ids,
            self.arrival_times.tolist(),
            self.num_prompt_tokens.tolist(),
            self.num_output_tokens.tolist(),
            repeat(None),
            repeat(None) if self.hash_ids is None else self.hash_ids,
            repeat(self.hash_block_size),
            repeat(None) if self.output_hash_ids is None else self.output_hash_ids,
            repeat(0) if self.priorities is None else self.priorities.tolist(),
            repeat("default") if self.client_ids is None else self.client_ids,
            repeat(None) if self.session_ids is None else self.session_ids,
            deadlines,
        )


def _take(column: Any, rows: IntArray) -> Any:
    if column is None:
        return None
    if isinstance(column, np.ndarray):
        return column[rows]
    if isinstance(column, BlockIdColumn):
        return column.take(rows)
    return [column[row] for row in rows.tolist()]


class OpenLoopWorkload:
    """Requests whose arrival times do not depend on the server; ids are "0", "1", … by arrival."""

    def __init__(self, columns: RequestColumns) -> None:
        check_times("a request arrives at", columns.arrival_times, TIME_CURE)
        backwards = np.flatnonzero(np.diff(columns.arrival_times) < 0)
        if backwards.size:
            row = int(backwards[0])
            later, earlier = columns.arrival_times[row : row + 2].tolist()
            raise WorkloadError(
                f"request {row + 1} arrives at {earlier} s, before request {row} at {later} s; "
                "sort the requests by arrival time"
            )
        self._columns = columns

    @property
    def num_requests(self) -> int:
        return len(self._columns)

    @property
    def columns(self) -> RequestColumns:
        """All requests as columns, in order of arrival (not to be changed)."""
        return self._columns

    def initial(self) -> Iterator[WorkloadRequest]:
        return self._columns.requests(map(str, range(len(self._columns))))

    def after_finish(self, request_id: str, now: float) -> Sequence[WorkloadRequest]:
        return ()

    @property
    def is_open_loop(self) -> bool:
        return True


class ListWorkload:
    """An open loop over requests that are given one by one, with ids of their own."""

    def __init__(self, requests: Sequence[WorkloadRequest]) -> None:
        arrivals = np.array([request.arrival_time for request in requests], dtype=np.float64)
        check_times("a request arrives at", arrivals, TIME_CURE)
        for before, after in pairwise(requests):
            if after.arrival_time < before.arrival_time:
                raise WorkloadError(
                    f"request {after.request_id} arrives at {after.arrival_time} s, before request "
                    f"{before.request_id} at {before.arrival_time} s; sort by arrival time"
                )
        if len({request.request_id for request in requests}) != len(requests):
            raise WorkloadError("two requests have the same request_id; give each its own")
        self._requests = tuple(requests)

    @property
    def num_requests(self) -> int:
        return len(self._requests)

    def initial(self) -> Sequence[WorkloadRequest]:
        return self._requests

    def after_finish(self, request_id: str, now: float) -> Sequence[WorkloadRequest]:
        return ()

    @property
    def is_open_loop(self) -> bool:
        return True
