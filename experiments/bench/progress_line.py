"""How far a load test is, as one line on a terminal.

A bar that redraws itself would take time from the event loop and show in the latencies, so this
is a short line, written at most once a second.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from experiments.bench.load import Progress

EVERY_S = 1.0
WIDTH = 60


@contextmanager
def progress_line(*, enabled: bool) -> Iterator[Progress | None]:
    """Gives a callback (ended, requests in all, seconds), or None where nobody watches."""
    if not enabled or not sys.stderr.isatty():
        yield None
        return
    last = time.monotonic()

    def update(ended: int, total: int, seconds: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY_S:
            last = now
            line = f"{ended:,} of {total:,} requests after {seconds:,.0f} s"
            print(f"\r{line:<{WIDTH}}", end="", file=sys.stderr, flush=True)

    try:
        yield update
    finally:
        print(f"\r{'':<{WIDTH}}\r", end="", file=sys.stderr, flush=True)
