"""One CPU: kept awake, or asked again and again how fast it is. A process of `SteadyCpus`.

    python -m experiments.pace_probe awake CPU
    python -m experiments.pace_probe pace CPU FILE

`pace` appends a line to FILE ten times a second: when (time.monotonic), and the CPU nanoseconds
that a fixed piece of work took: some arithmetic, and Python that follows a list from place to
place. The second is what a neighbour on the other half of a core slows down most, as it does an
engine.
"""

import os
import sys
import time
from pathlib import Path

PERIOD_S = 0.1
SIZE = 96  # of the square matrices: they stay in a CPU's own cache
PLACES = 1 << 15  # of the list: with its numbers a megabyte
JUMPS = 3000
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
    rng = np.random.default_rng(0)
    matrix = rng.random((SIZE, SIZE), dtype=np.float32)
    order = rng.permutation(PLACES)
    following = np.empty(PLACES, dtype=np.int64)
    following[order] = np.roll(order, -1)  # one circle through all places
    jumps: list[int] = following.tolist()

    def work() -> int:
        start = time.thread_time_ns()
        product = matrix
        for _ in range(3):
            product = product @ matrix
        place = 0
        for _ in range(JUMPS):
            place = jumps[place]
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
