"""What the endpoints count themselves: requests turned away, answers read for tool calls.

They count in the server's state; this file gives the counts their names and labels.
"""

from collections.abc import Iterator

from prometheus_client.core import Metric

from engine.server.metrics.series import FamilySet
from engine.server.state import ServerState

REJECTIONS = ("max_num_queued_reqs", "max_num_queued_tokens")
MODES = ("streaming", "non_streaming")
OUTCOMES = ("tool_call", "no_tool_call")


class FrontendMetrics:
    """Counters of one server's endpoints.

    Args:
        model_name: Value of the label model_name.
        state: What the endpoints count in.
    """

    def __init__(self, model_name: str, state: ServerState) -> None:
        self._state = state
        self._families = families = FamilySet({"model_name": model_name})
        self._rejections = families.counter(
            "vllm:admission_rejections", "Requests turned away by a limit of the queue.", "reason"
        )
        self._tool_calls = families.counter(
            "vllm:tool_call_parser_invocations",
            "Answers that a tool call parser has read.",
            *("mode", "outcome", "request_type"),
        )
        for reason in REJECTIONS:
            self._rejections.series(reason)
        for mode in MODES:
            for outcome in OUTCOMES:
                self._tool_calls.series(mode, outcome, "chat_completions")

    def collect(self) -> Iterator[Metric]:
        """The metrics as Prometheus samples."""
        self._rejections.series(REJECTIONS[0]).value = self._state.num_rejected
        for (mode, outcome), count in self._state.tool_parses.items():
            self._tool_calls.series(mode, outcome, "chat_completions").value = count
        return self._families.collect()
