"""Earliest deadline first: the queue that orders by the time a request is due.

It knows deadlines; whether one can still be met, it does not know.
"""

from typing import Any

from workbench.errors import ConfigError
from workbench.request import Request
from workbench.scheduler.request_queue import KeyedQueue


class EarliestDeadlineQueue(KeyedQueue):
    """The request that is due first (EDF; Liu and Layland, J. ACM 1973).

    It meets all deadlines where any order could, on one server with preemption. Under overload it
    serves the requests that are already late first, so goodput can fall below that of FCFS.

    Args:
        default_slack_s: Deadline of a request without one, seconds after its arrival.

    Raises:
        ConfigError: a negative slack.
    """

    def __init__(self, default_slack_s: float) -> None:
        super().__init__()
        if not default_slack_s >= 0:
            raise ConfigError(
                f"default_slack_s={default_slack_s} is below 0: give the seconds within which a "
                "request without a deadline is due"
            )
        self._default_slack_s = default_slack_s

    def key(self, request: Request) -> tuple[Any, ...]:
        deadline = request.deadline
        if deadline is None:
            deadline = request.arrival_time + self._default_slack_s
        return (deadline, request.arrival_time, request.arrival_index)
