"""A core in its own process: how it begins, and the ways in which it ends.

It ends when the front says so, when it fails, on SIGTERM, and when its parent is gone. Ctrl-C is
the parent's affair. As long as the process runs it beats, however long a step takes. Knows signals
and processes; what is served, and how it gets on, the loop knows.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import wait
from types import FrameType

from engine.core_channel import Addresses, CoreChannel
from engine.core_loop import CoreLoop
from engine.core_messages import CoreFailed
from engine.core_signs import SignsOfLife
from engine.errors import one_line
from engine.served_core import CoreSpec
from workbench.errors import WorkbenchError

logger = logging.getLogger(__name__)

ORPHANED = 3
"""Exit status of a core whose parent is gone."""
BEAT_S = 0.25
"""Seconds between two signs of life, and between two looks for the parent."""


def run_core(spec: CoreSpec, addresses: Addresses, signs: SignsOfLife) -> None:
    """Entry point of the process; returns never."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _end)
    beating = threading.Thread(
        target=_live_with_parent, args=(addresses, signs), name="heartbeat", daemon=True
    )
    beating.start()
    with CoreChannel(addresses) as channel:
        status = serve_core(spec, channel, signs)
    sys.exit(status)


def serve_core(spec: CoreSpec, channel: CoreChannel, signs: SignsOfLife) -> int:
    """Make a core and serve it until it is told to end, or cannot go on; the exit status."""
    try:
        served = spec.make()
    except Exception as error:
        _report("the core cannot start", error)
        channel.send(_failure(error))
        return 1
    try:
        CoreLoop(served, channel, signs).run()
    except Exception as error:
        _report("the core cannot go on", error)
        channel.send(_failure(error))
        return 1
    finally:
        served.shutdown()
    return 0


def _failure(error: Exception) -> CoreFailed:
    kind = type(error)
    name = f"{kind.__module__}:{kind.__qualname__}" if isinstance(error, WorkbenchError) else None
    return CoreFailed(one_line(error), name)


def _report(what: str, error: Exception) -> None:
    """Errors with a cure are told by the front; others are defects, whose place must be known."""
    if not isinstance(error, WorkbenchError):
        logger.error("%s: %s", what, one_line(error), exc_info=error)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _live_with_parent(addresses: Addresses, signs: SignsOfLife) -> None:
    """Give signs of life until the parent is gone, then end at once, whatever the process does."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    pid = os.getppid()
    signs.beat()
    # a sibling may have inherited what the sentinel watches; the parent's id cannot be
    while not wait([parent.sentinel], BEAT_S) and os.getppid() == pid:
        signs.beat()
    addresses.remove_folder()
    os._exit(ORPHANED)
