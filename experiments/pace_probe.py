"""One CPU: kept awake, or asked again and again how fast it is. A process of `SteadyCpus`.

    python -m experiments.pace_probe awake CPU
    python -m experiments.pace_probe pace CPU FILE

`pace` writes a line into FILE twenty times a second: when (time.monotonic), and how many
nanoseconds a fixed piece of work took.
"""

import os
import sys
import time
from pathlib import Path

PERIOD_S = 0.05


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
    from experiments.inside.fixed_work import PaceTeller

    os.sched_setaffinity(0, {cpu})
    teller = PaceTeller(path)
    parent = os.getppid()
    while os.getppid() == parent:
        teller.tell()
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
