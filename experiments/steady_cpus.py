"""CPUs that are as steady as they can be made while something is measured, and are watched.

A CPU of a virtual machine loses its place while it idles, and is much slower while another machine
works on the other half of its core; nothing in the machine's own counters says so. So each
CPU that the measured process uses is kept awake by a process of idle priority, which gives way at
once, and a small piece of fixed work tells twenty times a second how fast the CPU is. The process
is kept on these CPUs. Where an operating system knows none of this, nothing is done and nothing is
known.

For one process only. Several that talk to each other are moved to CPUs that idle, and none does:
they would wait for one another.
"""

import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from experiments.machine_watch import Disturbance, MachineWatch
from experiments.pace_log import Array, PaceLog
from experiments.process_stat import ProcessStat

LOOK_S = 1.5
BEST = 0.1  # this quantile of all times is how long the work takes on a CPU that is left alone
MOST = 0.9  # of the times count: in the rest the work was interrupted
FEWEST = 5
END_S = 5.0
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class SteadyCpus:
    """Keeps CPUs awake and knows their pace, while its `with` block runs.

    Args:
        num_cpus: As many as the measured process has threads; 0: watch nothing, change nothing.

    Attributes:
        paces: What was told of the CPUs' pace; of no use once the block has ended.
    """

    def __init__(self, num_cpus: int) -> None:
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._before = set(usable)
        # from the end: the first CPU is where a machine's interrupts mostly go
        self._cpus = usable[len(usable) - min(num_cpus, len(usable)) :] if num_cpus else []
        self._helpers: list[subprocess.Popen[bytes]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.paces = PaceLog()

    def __enter__(self) -> Self:
        if not self._cpus:
            return self
        self._folder = tempfile.TemporaryDirectory()
        self.paces = PaceLog(self._file(cpu) for cpu in self._cpus)
        environment = os.environ | dict.fromkeys(ONE_THREAD, "1")
        for cpu in self._cpus:
            for words in (["awake", str(cpu)], ["pace", str(cpu), str(self._file(cpu))]):
                command = [sys.executable, "-m", "experiments.pace_probe", *words]
                # one that may not do its work ends: then nothing is known of its CPU
                helper = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
                self._helpers.append(helper)
        os.sched_setaffinity(0, self._cpus)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for helper in self._helpers:
            helper.kill()
        for helper in self._helpers:
            helper.wait(END_S)
        self._helpers = []
        if self._folder is not None:
            os.sched_setaffinity(0, self._before)
            self._folder.cleanup()
            self._folder = None

    def watch(self) -> MachineWatch:
        """Watches from now on who else uses the machine, and how much slower it is."""
        return MachineWatch(self)

    def wait(self, disturbed: float, slowed: float, patience_s: float) -> Disturbance:
        """Wait until the machine is quiet; what was seen when last looked at.

        Args:
            disturbed: CPUs that others may use.
            slowed: How much longer the work may take, as a part of its time on CPUs left alone.
            patience_s: After as many seconds of waiting the machine is taken as it is.
        """
        if not self._cpus and disturbed >= (os.cpu_count() or 1):
            return Disturbance()
        end = time.monotonic() + patience_s
        while True:
            watch = self.watch()
            time.sleep(LOOK_S)
            seen = watch.seen()
            if seen.is_within(disturbed, slowed) or time.monotonic() > end:
                return seen

    def helpers_cpu_s(self) -> float:
        """CPU seconds of the helping processes so far."""
        found = [ProcessStat.read(Path(f"/proc/{helper.pid}")) for helper in self._helpers]
        return sum(stat.cpu_s for stat in found if stat is not None)

    def slowed(self, since: float) -> float | None:
        """How much longer the work took since then, as a part of its time on CPUs left alone.

        None: not known.

        Args:
            since: time.monotonic().
        """
        return _slowed(self.paces.during(since, math.inf), self.paces.so_far())

    def _file(self, cpu: int) -> Path:
        assert self._folder is not None, "only inside the with block"
        return Path(self._folder.name, f"pace_{cpu}")


def _slowed(recent: Array, everything: Array) -> float | None:
    if len(recent) < FEWEST:
        return None
    counted = np.sort(recent)[: round(MOST * len(recent))]
    return max(float(np.mean(counted) / np.quantile(everything, BEST)) - 1.0, 0.0)
