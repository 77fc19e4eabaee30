"""Runs inside a vLLM server on a CPU: its own worker, which also tells how fast its CPU is.

    PYTHONPATH=THIS_FOLDER VLLM_STEP_RECORD=FILE vllm serve … \
        --worker-cls vllm_paced_worker.PacedCpuWorker

Only the worker can tell: vLLM's other processes run on other CPUs, and a process beside it would
find a CPU in another state. Up to five times a second a step begins with a small piece of fixed
work, about 0.5 % of the time; a line of FILE.pace.RANK says when, and how long it took.
"""

import os
import time
from typing import Any

from fixed_work import FixedWork, line_of
from vllm.v1.worker.cpu_worker import CPUWorker

PERIOD_S = 0.2


class PacedCpuWorker(CPUWorker):
    """vLLM's worker on a CPU."""

    def init_device(self) -> Any:
        """Its own, after which this process stays on its CPUs."""
        found = super().init_device()
        self._fixed_work, self._told_at = FixedWork(), 0.0
        path = f"{os.environ['VLLM_STEP_RECORD']}.pace.{self.rank}"
        # open as long as the worker lives; a line at a time, so that it can be read meanwhile
        record = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._pace_file = os.fdopen(record, "w", buffering=1, encoding="utf-8")
        return found

    def execute_model(self, *args: Any, **kwargs: Any) -> Any:
        """Its own, now and then after the work."""
        now = time.monotonic()
        if now - self._told_at >= PERIOD_S:
            self._told_at = now
            self._pace_file.write(line_of(now, self._fixed_work.nanoseconds()))
        return super().execute_model(*args, **kwargs)
