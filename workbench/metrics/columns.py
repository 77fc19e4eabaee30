"""The definitions of every latency, each in one place, over arrays.

Knows how the times of a request become its latencies. Knows nothing of means, percentiles,
objectives or files. A latency that a request does not have is NaN here and is left out of every
statistic later.

With a = arrival, s = first time scheduled, t_1 .. t_n = times of the n output tokens, f = finish:

======================  ===================  ====================================================
latency                 formula              a request has it when
======================  ===================  ====================================================
``queue_s``             s - a                it was ever scheduled
``ttft_s``              t_1 - a              it gave a token (aborted later or not)
``tpot_s``              (t_n - t_1) / (n-1)  it gave two tokens or more
``itl_s``               t_(i+1) - t_i        every gap, n - 1 of them
``e2e_s``               f - a                it completed: reason stop or length
``normalized_latency``  e2e / n              it completed with at least one token
======================  ===================  ====================================================

TPOT and ITL are those of vLLM's serving benchmark, normalized latency is that of Orca (OSDI 2022)
and of the PagedAttention paper (SOSP 2023). Tokens that leave together
(speculation) have gaps of 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from workbench.errors import WorkbenchError
from workbench.metrics.records import FINISH_REASONS, UNFINISHED, RequestRecord

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RequestColumns:
    """The records of a run as arrays of shape (requests,), and all token times in one array.

    ``token_times_s[token_offsets[i]:token_offsets[i + 1]]`` are the tokens of request i.
    Missing times are NaN. Order of the rows: that of the records.
    """

    request_id: list[str]
    replica: Ints
    arrival_s: Floats
    first_scheduled_s: Floats
    finish_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    cached_tokens: Ints
    preemptions: Ints
    finish_reason: list[str]
    client_id: list[str]
    priority: Ints
    finish_detail: list[str | None]
    token_times_s: Floats
    token_offsets: Ints

    @classmethod
    def from_records(cls, records: Sequence[RequestRecord]) -> "RequestColumns":
        """Gather the columns; raises WorkbenchError on a finish reason that is not known."""
        times = [r.token_times_s for r in records]
        offsets = np.zeros(len(records) + 1, dtype=np.int64)
        np.cumsum([len(t) for t in times], out=offsets[1:])
        return cls(
            request_id=[r.request_id for r in records],
            replica=np.array([r.replica for r in records], dtype=np.int64),
            arrival_s=np.array([r.arrival_s for r in records], dtype=np.float64),
            # dtype float64 turns None into NaN
            first_scheduled_s=np.array([r.first_scheduled_s for r in records], dtype=np.float64),
            finish_s=np.array([r.finish_s for r in records], dtype=np.float64),
            prompt_tokens=np.array([r.prompt_tokens for r in records], dtype=np.int64),
            output_tokens=np.array([r.output_tokens for r in records], dtype=np.int64),
            cached_tokens=np.array([r.cached_tokens for r in records], dtype=np.int64),
            preemptions=np.array([r.preemptions for r in records], dtype=np.int64),
            finish_reason=_checked_reasons(records),
            client_id=[r.client_id for r in records],
            priority=np.array([r.priority for r in records], dtype=np.int64),
            finish_detail=[r.finish_detail for r in records],
            token_times_s=np.concatenate(times, dtype=np.float64) if times else np.empty(0),
            token_offsets=offsets,
        )

    def __len__(self) -> int:
        return len(self.request_id)

    def records(self) -> list[RequestRecord]:
        """The rows as records again; their token times are views into ``token_times_s``."""
        bounds = self.token_offsets.tolist()
        rows = zip(
            self.request_id,
            self.replica.tolist(),
            self.arrival_s.tolist(),
            (None if x != x else x for x in self.first_scheduled_s.tolist()),
            (None if x != x else x for x in self.finish_s.tolist()),
            self.prompt_tokens.tolist(),
            self.output_tokens.tolist(),
            self.cached_tokens.tolist(),
            self.preemptions.tolist(),
            self.finish_reason,
            (self.token_times_s[a:b] for a, b in pairwise(bounds)),
            self.client_id,
            self.priority.tolist(),
            self.finish_detail,
            strict=True,
        )
        return [RequestRecord(*row) for row in rows]

    def has_reason(self, *reasons: str) -> NDArray[np.bool_]:
        """Mask of shape (requests,): the finish reason is one of ``reasons``."""
        wanted = frozenset(reasons)
        return np.fromiter((r in wanted for r in self.finish_reason), np.bool_, len(self))

    @cached_property
    def completed(self) -> NDArray[np.bool_]:
        """Mask: answered to the end (stop or length) at a known time."""
        return self.has_reason("stop", "length") & ~np.isnan(self.finish_s)

    @cached_property
    def truncated(self) -> NDArray[np.bool_]:
        """Mask: the limit of the model's length cut the answer short of what was wanted."""
        told = np.fromiter((d is not None for d in self.finish_detail), np.bool_, len(self))
        return self.has_reason("length") & told

    @cached_property
    def num_tokens(self) -> Ints:
        """Output tokens with a known time, shape (requests,)."""
        return np.diff(self.token_offsets)

    @cached_property
    def first_token_s(self) -> Floats:
        return self._token_at(self.token_offsets[:-1])

    @cached_property
    def last_token_s(self) -> Floats:
        return self._token_at(self.token_offsets[1:] - 1)

    def _token_at(self, index: Ints) -> Floats:
        out = np.full(len(self), np.nan)
        some = self.num_tokens > 0
        out[some] = self.token_times_s[index[some]]
        return out

    @cached_property
    def queue_s(self) -> Floats:
        return self.first_scheduled_s - self.arrival_s

    @cached_property
    def ttft_s(self) -> Floats:
        return self.first_token_s - self.arrival_s

    @cached_property
    def tpot_s(self) -> Floats:
        out = np.full(len(self), np.nan)
        some = self.num_tokens > 1
        spans = self.last_token_s[some] - self.first_token_s[some]
        out[some] = spans / (self.num_tokens[some] - 1)
        return out

    @cached_property
    def itl_s(self) -> Floats:
        """Every gap between two tokens of one request, request after request."""
        return gaps(self.token_times_s, self.token_offsets)

    @cached_property
    def itl_offsets(self) -> Ints:
        """``itl_s[itl_offsets[i]:itl_offsets[i + 1]]`` are the gaps of request i."""
        out = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(np.maximum(self.num_tokens - 1, 0), out=out[1:])
        return out

    @cached_property
    def e2e_s(self) -> Floats:
        return np.where(self.completed, self.finish_s - self.arrival_s, np.nan)

    @cached_property
    def normalized_latency_s(self) -> Floats:
        some = self.output_tokens > 0
        return np.where(some, self.e2e_s / np.maximum(self.output_tokens, 1), np.nan)

    def check_integrity(self) -> None:
        """Raise WorkbenchError at the first request whose numbers contradict each other."""
        counts = {
            "output_tokens differs from the number of token times": (
                self.output_tokens != self.num_tokens
            ),
            "a negative count": (self.prompt_tokens < 0) | (self.preemptions < 0),
            "more cached than prompt tokens": self.cached_tokens > self.prompt_tokens,
        }
        order = {
            "scheduled before arrival": self.queue_s < 0,
            "first token before the first schedule": self.first_token_s < self.first_scheduled_s,
            "last token after the finish": self.last_token_s > self.finish_s,
            "a token before the one ahead of it": self._min_gap() < 0,
        }
        for what, bad in {**counts, **order}.items():
            if bad.any():
                i = int(np.argmax(bad))
                raise WorkbenchError(f"record of request {self.request_id[i]!r}: {what}")

    def _min_gap(self) -> Floats:
        out = np.full(len(self), np.nan)
        some = self.num_tokens > 1
        if some.any():
            out[some] = np.minimum.reduceat(self.itl_s, self.itl_offsets[:-1][some])
        return out


def gaps(times: Floats, offsets: Ints) -> Floats:
    """Differences inside each segment ``times[offsets[i]:offsets[i + 1]]``, in one array."""
    if len(times) < 2:
        return np.empty(0)
    steps = times[1:] - times[:-1]
    edges = offsets[(offsets > 0) & (offsets < len(times))] - 1
    if len(edges) == 0:
        return steps
    inside = np.ones(len(steps), dtype=np.bool_)
    inside[edges] = False
    return steps[inside]


def _checked_reasons(records: Sequence[RequestRecord]) -> list[str]:
    reasons = [r.finish_reason or UNFINISHED for r in records]
    unknown = set(reasons) - {*FINISH_REASONS, UNFINISHED}
    if unknown:
        raise WorkbenchError(
            f"finish_reason {sorted(unknown)[0]!r} is not known; use one of "
            f"{', '.join(FINISH_REASONS)}, {UNFINISHED}"
        )
    return reasons
