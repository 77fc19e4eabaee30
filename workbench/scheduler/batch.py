"""The batch of one step while it is being formed: budget, rows, and what was decided so far."""

from workbench.outputs import SchedulerOutput
from workbench.request import Request


class Batch:
    """A step under construction.

    Attributes:
        output: The step's decisions, filled as they are taken.
        token_budget: Tokens that may still be scheduled.
        rows: Requests scheduled one by one, with their tokens; the cohort is not among them.
        has_cohort: Whether the decode cohort takes part, with one token of each member.
        admitted: Requests admitted in this step.
        preempted: Requests thrown out in this step.
        long_prefill_token_threshold: Most tokens of one request in this step, 0 for no limit.
        defer_prefills: Whether this step leaves prompt tokens out (prefill_schedule_interval).
        prefill_continued, prefill_admitted: Whether a running, an admitted request computes
            prompt tokens.
        running_scheduled: Whether a running request was scheduled.
    """

    __slots__ = (
        "admitted",
        "defer_prefills",
        "has_cohort",
        "long_prefill_token_threshold",
        "output",
        "preempted",
        "prefill_admitted",
        "prefill_continued",
        "rows",
        "running_scheduled",
        "token_budget",
    )

    def __init__(self, output: SchedulerOutput, token_budget: int) -> None:
        self.output = output
        self.token_budget = token_budget
        self.rows: dict[Request, int] = {}
        self.has_cohort = False
        self.admitted: set[Request] = set()
        self.preempted: list[Request] = []
        self.long_prefill_token_threshold = 0
        self.defer_prefills = False
        self.prefill_continued = False
        self.prefill_admitted = False
        self.running_scheduled = False

    def unschedule(self, request: Request) -> None:
        """Take a request back out, if it was in."""
        self.token_budget += self.rows.pop(request, 0)
        self.output.new_block_ids.pop(request.request_id, None)
        self.output.scheduled_spec_decode_tokens.pop(request.request_id, None)
