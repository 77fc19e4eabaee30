"""Sessions: requests that follow one another, each after the end of the one before.

Knows which request comes after which, and after how long a wait. Knows nothing of how lengths,
arrivals and ids came about. A single request is a session of one turn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from workbench.errors import WorkloadError
from workbench.workload.arrivals import Arrivals
from workbench.workload.base import (
    TIME_CURE,
    FloatArray,
    IntArray,
    RequestColumns,
    WorkloadRequest,
)
from workbench.workload.block_ids import BlockIdColumn
from workbench.workload.bounds import check_times


def session_numbers(turns: IntArray) -> IntArray:
    """The number of the session of each request, from 0; turn 0 begins a session."""
    return np.cumsum(turns == 0) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlan:
    """Requests in the order of sessions and turns, with what they share; arrays of shape [n].

    `turns` counts from 0 within a session; `think_times` [s] is the wait after the turn before.
    `num_prompt_tokens` are whole prompts, earlier turns included.
    """

    turns: IntArray
    think_times: FloatArray
    num_prompt_tokens: IntArray
    hash_ids: BlockIdColumn | None = None
    hash_block_size: int = 0
    output_hash_ids: BlockIdColumn | None = None

    @property
    def sessions(self) -> IntArray:
        """The number of the session of each request."""
        return session_numbers(self.turns)

    def columns(self, num_output_tokens: IntArray) -> RequestColumns:
        """The requests as columns, with session names if a session has a second turn."""
        names: list[str] | None = None
        if self.turns.any():
            names = [f"session-{session}" for session in self.sessions.tolist()]
        return RequestColumns(
            arrival_times=np.zeros(len(self.turns)),
            num_prompt_tokens=self.num_prompt_tokens,
            num_output_tokens=num_output_tokens,
            hash_ids=self.hash_ids,
            hash_block_size=self.hash_block_size,
            output_hash_ids=self.output_hash_ids,
            session_ids=names,
        )


class SessionWorkload:
    """Sessions that start at given times, or in a closed loop as others end.

    `columns`: all requests, session by session, turn by turn; their arrival times are not used and
    their deadlines are relative: slack after the arrival [s], NaN for none.
    `turns` [n]: 0 begins a session. `starts` [s]: sorted starts of the first sessions; the others
    start one by one, whenever a session ends. `waits` [n, s]: between the end of the request that
    sets a request off and its arrival. The id of a request is its row number.
    """

    def __init__(
        self, columns: RequestColumns, turns: IntArray, starts: FloatArray, waits: FloatArray
    ) -> None:
        check_times("a session starts at", starts, TIME_CURE)
        check_times("a request waits for", waits, "shorten the think times, or raise rate_scale")
        self._columns = columns
        self._first_rows = np.flatnonzero(turns == 0)
        self._starts = starts
        self._waits = waits
        self._is_last = np.append(turns[1:] == 0, True).tolist()
        self._next_session = len(starts)

    @property
    def num_requests(self) -> int:
        return len(self._columns)

    @property
    def num_sessions(self) -> int:
        return len(self._first_rows)

    @property
    def is_open_loop(self) -> bool:
        return len(self._starts) == len(self._columns)

    def initial(self) -> Iterator[WorkloadRequest]:
        self._next_session = len(self._starts)
        rows = self._first_rows[: len(self._starts)]
        columns = self._columns.take(rows)
        deadlines = None if columns.deadlines is None else columns.deadlines + self._starts
        columns = replace(columns, arrival_times=self._starts, deadlines=deadlines)
        return columns.requests(map(str, rows.tolist()))

    def after_finish(self, request_id: str, now: float) -> Sequence[WorkloadRequest]:
        try:
            row = int(request_id)
            is_last = self._is_last[row]
        except (ValueError, IndexError):
            raise WorkloadError(
                f"request {request_id!r} is not one of this workload's; pass the ids it gave"
            ) from None
        if not is_last:
            return (self._request(row + 1, now),)
        if self._next_session == len(self._first_rows):
            return ()
        row = int(self._first_rows[self._next_session])
        self._next_session += 1
        return (self._request(row, now),)

    def _request(self, row: int, now: float) -> WorkloadRequest:
        columns = self._columns
        arrival = now + float(self._waits[row])
        slack = None if columns.deadlines is None else float(columns.deadlines[row])
        return WorkloadRequest(
            request_id=str(row),
            arrival_time=arrival,
            num_prompt_tokens=int(columns.num_prompt_tokens[row]),
            num_output_tokens=int(columns.num_output_tokens[row]),
            hash_ids=None if columns.hash_ids is None else columns.hash_ids[row],
            hash_block_size=columns.hash_block_size,
            output_hash_ids=(
                None if columns.output_hash_ids is None else columns.output_hash_ids[row]
            ),
            priority=0 if columns.priorities is None else int(columns.priorities[row]),
            client_id="default" if columns.client_ids is None else columns.client_ids[row],
            session_id=None if columns.session_ids is None else columns.session_ids[row],
            deadline=None if slack is None or slack != slack else arrival + slack,
        )


def place_sessions(
    plan: SessionPlan, arrivals: Arrivals, rng: np.random.Generator, rate_scale: float
) -> tuple[FloatArray, FloatArray]:
    """Draw the `starts` and `waits` of a `SessionWorkload`; arrivals come `rate_scale` as fast."""
    sessions = plan.sessions
    num_sessions = int(sessions[-1]) + 1
    starts = arrivals.times(num_sessions, rng) / rate_scale
    between = arrivals.think_times(num_sessions, rng) / rate_scale
    return starts, np.where(plan.turns == 0, between[sessions], plan.think_times)


def session_blocks(
    turns: IntArray,
    prompts: IntArray,
    outputs: IntArray,
    block_size: int,
    shared_first: IntArray,
    num_shared: IntArray,
    own_first: int,
) -> tuple[BlockIdColumn, BlockIdColumn]:
    """Chained ids of prompts and of answers, in sessions whose prompts contain all that was before.

    `prompts` are whole prompts [n]. Block j of a session is shared with other sessions for
    j < `num_shared` (id `shared_first + j`); ids of other blocks begin at `own_first`.
    """
    sessions = session_numbers(turns)
    begin = prompts // block_size
    end = (prompts + outputs) // block_size
    last = np.append(turns[1:] == 0, True)
    lengths = end[last]  # a session's text only grows, so its last turn has all its blocks
    own = (own_first + np.cumsum(lengths) - lengths)[sessions]
    shared = (shared_first, num_shared, own)
    return (
        BlockIdColumn(*shared, np.zeros_like(begin), begin),
        BlockIdColumn(*shared, begin, end),
    )
