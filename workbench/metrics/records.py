"""What a run leaves behind of every request: one record each.

Knows the columns and nothing else: no definition of a latency, no statistics, no file format.
Both worlds (simulated and real) fill records and the `StepLog`, so every number that is reported
later comes from the same arithmetic.
"""

from dataclasses import dataclass, fields

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
    ``finish_detail`` says in words why a request was ignored, ended as an error or is unfinished,
    or (with the reason ``length``) had its answer cut by the model's length; else None.
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
    finish_detail: str | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RequestRecord):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        )

    def __hash__(self) -> int:
        return hash(self.request_id)
