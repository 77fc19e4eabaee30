"""What a run leaves behind: one record a request, one row a step.

Knows the columns and nothing else: no definition of a latency, no statistics, no file format.
Both worlds (simulated and real) fill these two structures, so every number that is reported
later comes from the same arithmetic.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

FINISH_REASONS = ("stop", "length", "abort", "ignored", "error")
UNFINISHED = "unfinished"


@dataclass(slots=True, eq=False)
class RequestRecord:
    """Life of one request; times are absolute seconds on the run's clock.

    ``finish_reason`` is one of ``FINISH_REASONS``, or ``UNFINISHED`` (or empty) when the run ended
    before the request did; then ``finish_s`` is None. ``token_times_s`` has shape
    ``(output_tokens,)``, float64, never decreasing: the time at which each output token left.
    ``cached_tokens`` counts prompt tokens served by the prefix cache at the first admission.
    """

    request_id: str
    replica: int
    arrival_s: float
    first_scheduled_s: float | None
    finish_s: float | None
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    preemptions: int
    finish_reason: str
    token_times_s: NDArray[np.float64]
    client_id: str = "default"
    priority: int = 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RequestRecord):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(slots=True)
class StepLog:
    """Columns of the steps of all replicas, in the order in which the steps began once sorted.

    ``running``, ``waiting`` and ``kv_blocks_used`` are the state during the step; ``preempted``
    counts the preemptions decided in it. ``scheduled_tokens`` is all tokens computed,
    of which ``prefill_tokens`` belong to prompts (recomputed tokens included) and
    ``decode_tokens`` to answers.
    """

    replica: list[int] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    duration_s: list[float] = field(default_factory=list)
    scheduled_tokens: list[int] = field(default_factory=list)
    prefill_tokens: list[int] = field(default_factory=list)
    decode_tokens: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    preempted: list[int] = field(default_factory=list)
    kv_blocks_used: list[int] = field(default_factory=list)

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
        num_steps = len(start_s)
        self.replica += [replica] * num_steps
        self.start_s += start_s
        self.duration_s += duration_s
        self.scheduled_tokens += [decode_tokens] * num_steps
        self.prefill_tokens += [0] * num_steps
        self.decode_tokens += [decode_tokens] * num_steps
        self.running += [running] * num_steps
        self.waiting += [waiting] * num_steps
        self.preempted += [0] * num_steps
        self.kv_blocks_used += kv_blocks_used

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
        """Add one step; ten list appends and nothing else."""
        self.replica.append(replica)
        self.start_s.append(start_s)
        self.duration_s.append(duration_s)
        self.scheduled_tokens.append(scheduled_tokens)
        self.prefill_tokens.append(prefill_tokens)
        self.decode_tokens.append(decode_tokens)
        self.running.append(running)
        self.waiting.append(waiting)
        self.preempted.append(preempted)
        self.kv_blocks_used.append(kv_blocks_used)

    def __len__(self) -> int:
        return len(self.start_s)

    def sort(self) -> None:
        """Put the steps in the order in which they began, those of one time by replica."""
        order = np.lexsort((self.replica, self.start_s))
        if len(order) > 1 and (np.diff(order) != 1).any():
            pick = itemgetter(*order.tolist())
            for f in fields(self):
                setattr(self, f.name, list(pick(getattr(self, f.name))))

    def columns(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """(name, array of shape (steps,)) field by field; times are float64, counts int64."""
        for f in fields(self):
            dtype = np.float64 if f.name in ("start_s", "duration_s") else np.int64
            yield f.name, np.asarray(getattr(self, f.name), dtype=dtype)
