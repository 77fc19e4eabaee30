"""One CPU: kept awake, or asked again and again how fast it is. A process of `SteadyCpus`.

    python -m experiments.pace_probe awake CPU
    python -m experiments.pace_probe pace CPU FILE

`pace` appends a line to FILE five times a second: when (time.monotonic), and the CPU nanoseconds
that a fixed piece of work took, half of it arithmetic and half of it memory.
"""

import os
import sys
import time
from pathlib import Path

PERIOD_S = 0.2
SIZE = 96  # of the square matrices: they stay in a CPU's own cache
NUM_BYTES = 1 << 21  # copied: more than a CPU's own cache holds, so neighbours are felt
WARM_UP = 20


def stay_awake(cpu: int) -> None:
    """Compute nothing, whenever nobody else wants the CPU; until the process is ended."""
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    parent = os.getppid()
    while os.getppid() == parent:
        for _ in range(200_000):
            pass


def tell_pace(cpu: int, path: Path) -> None:
    """Time the work until the process is ended."""
    import numpy as np

    os.sched_setaffinity(0, {cpu})
    matrix = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
    source = np.zeros(NUM_BYTES, dtype=np.uint8)
    target = np.empty_like(source)

    def work() -> int:
        start = time.thread_time_ns()
        product = matrix
        for _ in range(3):
            product = product @ matrix
        np.copyto(target, source)
        return time.thread_time_ns() - start

    for _ in range(WARM_UP):
        work()
    parent = os.getppid()
    with path.open("a", encoding="utf-8") as file:
        while os.getppid() == parent:
            took = work()
            file.write(f"{time.monotonic():.3f} {took}\n")
            file.flush()
            time.sleep(PERIOD_S)


def main() -> None:
    """What the command line says."""
    kind, cpu, *rest = sys.argv[1:]
    if kind == "awake":
        stay_awake(int(cpu))
    else:
        tell_pace(int(cpu), Path(rest[0]))


if __name__ == "__main__":
    main()
