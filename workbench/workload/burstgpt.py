"""Reader of the BurstGPT traces.

Source: https://github.com/HPMLL/BurstGPT (CC-BY-4.0). Columns Timestamp [s], Model, Request tokens,
Response tokens, Total tokens, Log Type; later releases add Session ID. Rows with no response token
are requests that failed. The trace says nothing of what prompts share.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from workbench.errors import WorkloadError
from workbench.workload.base import RequestColumns
from workbench.workload.trace import TraceWorkload
from workbench.workload.trace_file import read_csv


class BurstGPTTrace(TraceWorkload):
    """A BurstGPT trace; arrivals are seconds since its earliest row.

    Rows with 0 response tokens are skipped and counted in `num_skipped`.
    """

    hint: ClassVar[str] = (
        "download BurstGPT_1.csv from https://github.com/HPMLL/BurstGPT and set workload.path=FILE"
    )

    def read(self, path: Path) -> tuple[RequestColumns, Sequence[int]]:
        needed = (
            "Timestamp",
            "Model",
            "Request tokens",
            "Response tokens",
            "Total tokens",
            "Log Type",
        )
        table = read_csv(path, needed, ("Session ID",), self.hint)
        succeeded = np.flatnonzero(table.token_counts("Response tokens", at_least=0) > 0)
        self.num_skipped = len(table) - len(succeeded)
        if len(succeeded) == 0:
            raise WorkloadError(f"{path} holds failed requests only; {self.hint}")
        if self.num_skipped:
            table = table.keep(succeeded)
        times = table.numbers("Timestamp", at_least=0)
        sessions: list[str | None] | None = None
        if table.has("Session ID"):
            sessions = [value or None for value in table.columns["Session ID"]]
        columns = RequestColumns(
            arrival_times=times - times.min(),
            num_prompt_tokens=table.token_counts("Request tokens"),
            num_output_tokens=table.token_counts("Response tokens"),
            session_ids=sessions,
        )
        return columns, table.lines
