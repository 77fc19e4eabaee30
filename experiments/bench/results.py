"""What a load has measured: records as every run of the workbench leaves them, and what only a
client knows.

Knows how an answer becomes a record. Latencies are defined in `workbench.metrics`, over records
whose arrival is the time at which a request was due. Where requests had to wait for a place in the
client, the same latencies counted from sending are there beside them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.bench.answer import ABORTED, Answer
from experiments.bench.http import CANCELLED
from experiments.bench.load import Sent
from workbench.metrics import (
    SLO,
    UNFINISHED,
    RequestColumns,
    RequestRecord,
    StepLog,
    distribution,
    summarize,
)

Floats = NDArray[np.float64]
NOTICEABLE_S = 0.001  # a timer of an event loop is about as late as this
NO_CLUE = ("preemptions", "busy_fraction", "waiting_max", "steps")  # a client sees no steps


@dataclass(frozen=True)
class BenchResult:
    """A finished or interrupted load.

    Attributes:
        records: One a request that was sent, in the order of sending; times in seconds since the
            load began, the arrival is when it was due.
        sent_s: When each was sent, shape [requests].
        failures: Kind of failure of each request, None for those that succeeded.
        duration_s: From the begin of the load to the last answer.
        cached_tokens_known: Whether the server tells of cached prompt tokens.
        num_inexact: Answers whose tokens have times by the length of their texts.
        num_unsent: Requests that were due and for which there was no place before the end.
        num_unlearned: Turns that could not repeat an earlier answer.
        num_other_length: Answers of another length than asked for.
        interrupted: Somebody stopped it.
    """

    records: list[RequestRecord]
    sent_s: Floats
    failures: list[str | None]
    duration_s: float
    cached_tokens_known: bool = False
    num_inexact: int = 0
    num_unsent: int = 0
    num_unlearned: int = 0
    num_other_length: int = 0
    interrupted: bool = False

    @cached_property
    def columns(self) -> RequestColumns:
        """The records as columns: latencies from the time at which a request was due."""
        return RequestColumns.from_records(self.records)

    @cached_property
    def from_sending(self) -> RequestColumns:
        """The same with latencies from sending."""
        return replace(self.columns, arrival_s=self.sent_s)

    @cached_property
    def send_delay_s(self) -> Floats:
        """How long each waited in the client after it was due, shape [requests]."""
        return np.maximum(self.sent_s - self.columns.arrival_s, 0.0)

    @property
    def has_send_delay(self) -> bool:
        """Whether requests waited in the client for longer than a timer is late."""
        delays = self.send_delay_s
        return bool(len(delays)) and float(np.percentile(delays, 99)) > 5 * NOTICEABLE_S

    @property
    def num_failed(self) -> int:
        return sum(failure is not None for failure in self.failures)

    def failure_counts(self) -> list[tuple[str, int, str]]:
        """(kind, number, the first one's detail), the most frequent first."""
        counts = Counter(failure for failure in self.failures if failure is not None)
        firsts: dict[str, str] = {}
        for record, failure in zip(self.records, self.failures, strict=True):
            if failure is not None:
                detail = (record.finish_detail or "").removeprefix(failure).removeprefix(": ")
                firsts.setdefault(failure, detail)
        return [(kind, number, firsts[kind]) for kind, number in counts.most_common()]

    @cached_property
    def peak_concurrency(self) -> int:
        """Most requests that were open at one time."""
        ends = np.where(np.isnan(self.columns.finish_s), self.duration_s, self.columns.finish_s)
        times = np.concatenate([self.sent_s, ends])
        changes = np.repeat([1, -1], len(ends))
        # an end before a begin at the same time: the place was passed on
        order = np.lexsort((changes, times))
        return int(np.cumsum(changes[order]).max(initial=0))

    def peak_output_tokens_per_s(self) -> float:
        """Most output tokens within one second, on a grid of seconds."""
        times = self.columns.token_times_s
        if not len(times):
            return 0.0
        return float(np.bincount(times.astype(np.int64)).max())

    def summary(self, slo: SLO) -> dict[str, Any]:
        """Every number of a run's summary, and those that only a client has."""
        counters: dict[str, float] = {}
        if self.cached_tokens_known:
            answered = self.columns.output_tokens > 0
            counters["prefix_queries_tokens"] = float(self.columns.prompt_tokens[answered].sum())
            counters["prefix_hit_tokens"] = float(self.columns.cached_tokens[answered].sum())
        summary: dict[str, Any] = summarize(
            self.columns, StepLog(), slo, duration_s=self.duration_s, counters=counters
        )
        summary |= dict.fromkeys(NO_CLUE)
        summary |= distribution("send_delay_s", self.send_delay_s)
        for name in ("ttft_s", "e2e_s"):
            values = getattr(self.from_sending, name)
            summary |= distribution(f"{name[:-2]}_from_sending_s", values)
        summary["peak_concurrency"] = self.peak_concurrency
        summary["peak_output_tokens_per_s"] = self.peak_output_tokens_per_s()
        summary["failures"] = {kind: number for kind, number, _ in self.failure_counts()}
        for name in ("num_inexact", "num_unsent", "num_unlearned", "num_other_length"):
            summary[name] = getattr(self, name)
        summary["interrupted"] = self.interrupted
        return summary


def collect(
    sent: Sequence[Sent],
    answers: Sequence[Answer],
    started_at: float,
    duration_s: float,
    **facts: Any,
) -> BenchResult:
    """The result of a load: `answers` are those of `sent`, in its order.

    Args:
        started_at: On the clock of the answers.
        facts: Further fields of the result.
    """
    pairs = list(zip(sent, answers, strict=True))
    whole = [(each.item, answer) for each, answer in pairs if answer.failure is None]
    return BenchResult(
        records=[_record(each, answer, started_at) for each, answer in pairs],
        sent_s=np.array([answer.sent_at - started_at for answer in answers], dtype=np.float64),
        failures=[None if a.failure is None else a.failure[0] for a in answers],
        duration_s=duration_s,
        cached_tokens_known=any(answer.cached_tokens is not None for answer in answers),
        num_inexact=sum(not answer.is_exact for answer in answers),
        num_other_length=sum(
            len(answer.token_times) != item.num_output_tokens for item, answer in whole
        ),
        **facts,
    )


def _record(sent: Sent, answer: Answer, started_at: float) -> RequestRecord:
    item = sent.item
    reason, detail = _ended(answer)
    times = answer.token_times - started_at
    prompt_tokens = answer.prompt_tokens
    return RequestRecord(
        item.request_id,
        0,
        # a timer may be early by less than a clock can tell
        min(sent.due_at, answer.sent_at - started_at),
        None,
        None if reason == UNFINISHED else answer.ended_at - started_at,
        item.num_prompt_tokens if prompt_tokens is None else prompt_tokens,
        len(times),
        answer.cached_tokens or 0,
        0,
        reason,
        times,
        item.client_id,
        item.priority,
        detail,
    )


def _ended(answer: Answer) -> tuple[str, str | None]:
    """(finish reason, detail) of a record."""
    if answer.failure is None:
        return "length" if answer.finish_reason == "length" else "stop", None
    if answer.failure[0] == CANCELLED:
        return UNFINISHED, "the load was stopped before its end"
    if answer.failure[0] == ABORTED:
        return "abort", answer.error
    return "error", answer.error
