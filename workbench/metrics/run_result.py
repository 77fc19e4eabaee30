"""What a run leaves behind, in whichever world it ran."""

from dataclasses import dataclass, field

from workbench.errors import CostModelError
from workbench.metrics.records import RequestRecord
from workbench.metrics.step_log import StepLog


@dataclass(frozen=True, slots=True)
class RunResult:
    """Requests and steps of a run.

    Attributes:
        records: One a request, in the order of arrival.
        steps: One row a step.
        duration_s: From the start of the run to its last event, seconds of its own clock.
        counters: Sums over the replicas: preemptions, prefix_queries_tokens, prefix_hit_tokens …
        ignored: Why requests were ignored, one line each.
        recording: The file of `workbench.recording`, where one was asked for.
    """

    records: list[RequestRecord]
    steps: StepLog
    duration_s: float
    counters: dict[str, float] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    recording: bytes | None = None


class RunStoppedError(CostModelError):
    """A run had to end before its requests, as a step could not be priced.

    Attributes:
        result: What was served until then. Requests that had arrived and not ended are unfinished.
    """

    def __init__(self, message: str, result: RunResult) -> None:
        super().__init__(message)
        self.result = result
