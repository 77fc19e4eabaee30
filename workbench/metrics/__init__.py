"""Request records and step logs to TTFT, TPOT, ITL, E2E, goodput: for both worlds."""

from workbench.metrics.columns import RequestColumns
from workbench.metrics.records import FINISH_REASONS, UNFINISHED, RequestRecord
from workbench.metrics.run_result import RunResult, RunStoppedError
from workbench.metrics.slo import SLO
from workbench.metrics.step_log import StepLog
from workbench.metrics.summary import LATENCIES, PERCENTILES, distribution, jain_index, summarize

__all__ = [
    "FINISH_REASONS",
    "LATENCIES",
    "PERCENTILES",
    "SLO",
    "UNFINISHED",
    "RequestColumns",
    "RequestRecord",
    "RunResult",
    "RunStoppedError",
    "StepLog",
    "distribution",
    "jain_index",
    "summarize",
]
