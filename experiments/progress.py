"""A progress bar on a terminal, nothing elsewhere.

Knows whether somebody is watching. Runs in worker processes show none: their bars would overwrite
each other.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int, float], None]
REFRESH_S = 0.1


@contextmanager
def progress_bar(*, enabled: bool, activity: str = "simulation") -> Iterator[Progress | None]:
    """Gives a callback (finished requests, all requests, seconds of the run), or None.

    `activity` is "simulation", whose seconds are simulated, or the name of something real.
    """
    if not enabled or not sys.stderr.isatty() or multiprocessing.parent_process() is not None:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    seconds = "simulated s" if activity == "simulation" else "s"
    columns = (
        TextColumn(activity),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"requests, {{task.fields[clock]:,.0f}} {seconds}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task(activity, total=None, clock=0.0)
        last = 0.0

        def update(finished: int, total: int, clock_s: float) -> None:
            nonlocal last
            if time.monotonic() - last >= REFRESH_S:
                last = time.monotonic()
                bar.update(line, completed=finished, total=total or None, clock=clock_s)

        yield update
