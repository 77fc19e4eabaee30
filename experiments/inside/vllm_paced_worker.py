"""Runs inside a vLLM server on a CPU: its own worker, which also tells how fast its CPU is.

    PYTHONPATH=THIS_FOLDER VLLM_STEP_RECORD=FILE vllm serve … \
        --worker-cls vllm_paced_worker.PacedCpuWorker

Only the worker can tell: vLLM's other processes run on other CPUs, and a process beside it would
find a CPU in another state. Up to ten times a second a step begins with a small piece of fixed
work, less than 1 % of the time; a line of FILE.pace.RANK says when, and how long it took.
"""

import os
import time
from pathlib import Path
from typing import Any

from fixed_work import PaceTeller
from vllm.v1.worker.cpu_worker import CPUWorker

PERIOD_S = 0.1


class PacedCpuWorker(CPUWorker):
    """vLLM's worker on a CPU."""

    def init_device(self) -> Any:
        """Its own, after which this process stays on its CPUs."""
        found = super().init_device()
        path = Path(f"{os.environ['VLLM_STEP_RECORD']}.pace.{self.rank}")
        self._pace_teller, self._told_at = PaceTeller(path), 0.0
        return found

    def execute_model(self, *args: Any, **kwargs: Any) -> Any:
        """Its own, now and then after the work."""
        now = time.monotonic()
        if now - self._told_at >= PERIOD_S:
            self._told_at = now
            self._pace_teller.tell()
        return super().execute_model(*args, **kwargs)
