"""What a run leaves behind of every step: one row each, kept small.

Knows the columns and how to add to them fast. Knows no statistics and no file format.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]

TIMES = ("start_s", "duration_s")
# equal for all steps of one `extend_decodes`, so kept once a call until they are packed
SHARED = (
    "replica",
    "scheduled_tokens",
    "prefill_tokens",
    "decode_tokens",
    "running",
    "waiting",
    "preempted",
)
COLUMNS = ("replica", *TIMES, *SHARED[1:], "kv_blocks_used")
STEPS_A_CHUNK = 1 << 15
_row = Struct(f"{len(SHARED) + 1}q").pack


class StepLog:
    """The steps of all replicas, in the order in which they began once sorted.

    Each of ``COLUMNS`` is an attribute, an array of shape (steps,); times are float64 in seconds,
    counts int64. ``running``, ``waiting`` and ``kv_blocks_used`` are the state during the step;
    ``preempted`` counts the preemptions decided in it, and those since the step before: a step that
    only throws requests out computes nothing and has no row. ``scheduled_tokens`` is all tokens
    computed, of which ``prefill_tokens`` belong to prompts (recomputed tokens included) and
    ``decode_tokens`` to answers.

    A long run has millions of steps, and a Python number takes four times the memory of an
    array's. New steps are therefore gathered and turned into arrays a chunk at a time.
    """

    __slots__ = ("_chunks", "_durations", "_kv_blocks", "_preempted", "_shared", "_starts")

    def __init__(self) -> None:
        self._chunks: list[dict[str, Column]] = []
        self._starts: list[float] = []
        self._durations: list[float] = []
        self._kv_blocks: list[int] = []
        self._shared = bytearray()  # rows: number of steps, then SHARED
        self._preempted: Counter[int] = Counter()  # preemptions without a row yet, by replica

    @classmethod
    def from_columns(cls, columns: Mapping[str, Column]) -> "StepLog":
        """The log of columns as ``columns`` gives them: every name, all of one length."""
        log = cls()
        log._chunks = [{name: _typed(name, columns[name]) for name in COLUMNS}]
        return log

    def append(
        self,
        replica: int,
        start_s: float,
        duration_s: float,
        scheduled_tokens: int,
        prefill_tokens: int,
        decode_tokens: int,
        running: int,
        waiting: int,
        preempted: int,
        kv_blocks_used: int,
    ) -> None:
        """Add one step."""
        if self._preempted:
            preempted += self._preempted.pop(replica, 0)
        self._starts.append(start_s)
        self._durations.append(duration_s)
        self._kv_blocks.append(kv_blocks_used)
        self._shared += _row(
            1,
            replica,
            scheduled_tokens,
            prefill_tokens,
            decode_tokens,
            running,
            waiting,
            preempted,
        )
        if len(self._starts) >= STEPS_A_CHUNK:
            self._pack()

    def note_preemptions(self, replica: int, preempted: int) -> None:
        """Count preemptions of a step that computes nothing: they go to the replica's next row."""
        if preempted:
            self._preempted[replica] += preempted

    def extend_decodes(
        self,
        replica: int,
        start_s: list[float],
        duration_s: list[float],
        kv_blocks_used: list[int],
        *,
        decode_tokens: int,
        running: int,
        waiting: int,
    ) -> None:
        """Add steps of one replica that only decode, all with the same batch."""
        self._starts += start_s
        self._durations += duration_s
        self._kv_blocks += kv_blocks_used
        self._shared += _row(
            len(start_s), replica, decode_tokens, 0, decode_tokens, running, waiting, 0
        )
        if len(self._starts) >= STEPS_A_CHUNK:
            self._pack()

    def __len__(self) -> int:
        return sum(len(chunk["start_s"]) for chunk in self._chunks) + len(self._starts)

    def __getattr__(self, name: str) -> Column:
        if name not in COLUMNS:
            raise AttributeError(f"StepLog has no {name!r}; its columns are {', '.join(COLUMNS)}")
        return self._packed()[name]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StepLog):
            return NotImplemented
        mine, theirs = self._packed(), other._packed()
        return all(np.array_equal(mine[name], theirs[name]) for name in COLUMNS)

    def __hash__(self) -> int:
        raise TypeError("a StepLog grows and has no hash")

    def columns(self) -> Iterator[tuple[str, Column]]:
        """(name, array of shape (steps,)) column by column; not to be written to."""
        yield from self._packed().items()

    def sort(self) -> None:
        """Put the steps in the order in which they began, those of one time by replica."""
        columns = self._packed()
        order = np.lexsort((columns["replica"], columns["start_s"]))
        if len(order) > 1 and (np.diff(order) != 1).any():
            self._chunks = [{name: columns.pop(name)[order] for name in COLUMNS}]

    def _packed(self) -> dict[str, Column]:
        """All columns, each one array."""
        self._pack()
        if len(self._chunks) != 1:
            parts = self._chunks or [{name: _typed(name, ()) for name in COLUMNS}]
            # popped, so that no more than one column is there twice
            self._chunks = [{n: np.concatenate([part.pop(n) for part in parts]) for n in COLUMNS}]
        if self._preempted:
            self._count_last_preemptions(self._chunks[0])
        return self._chunks[0]

    def _count_last_preemptions(self, columns: dict[str, Column]) -> None:
        """Count preemptions that no step followed in their replica's last row."""
        preempted = columns["preempted"] = columns["preempted"].copy()
        for replica in list(self._preempted):
            rows = np.flatnonzero(columns["replica"] == replica)
            if len(rows):
                preempted[rows[-1]] += self._preempted.pop(replica)

    def _pack(self) -> None:
        """Turn the lists into arrays."""
        if not self._starts:
            return
        rows = np.frombuffer(bytes(self._shared), np.int64).reshape(-1, len(SHARED) + 1)
        chunk = {name: np.repeat(rows[:, i], rows[:, 0]) for i, name in enumerate(SHARED, start=1)}
        chunk["start_s"] = _typed("start_s", self._starts)
        chunk["duration_s"] = _typed("duration_s", self._durations)
        chunk["kv_blocks_used"] = _typed("kv_blocks_used", self._kv_blocks)
        self._chunks.append({name: chunk[name] for name in COLUMNS})
        for pending in (self._starts, self._durations, self._kv_blocks, self._shared):
            pending.clear()


def _typed(name: str, values: Sequence[float] | Column) -> Column:
    return np.asarray(values, dtype=np.float64 if name in TIMES else np.int64)
