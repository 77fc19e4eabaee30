"""Threads that work beside what clients wait for, and step back where cores are few.

Knows threads; knows no work.
"""

import os
import sys
from threading import get_native_id

NICENESS = 10


def step_back() -> None:
    """Give the running thread, and no other, a lower priority, where the system can."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, get_native_id(), NICENESS)
