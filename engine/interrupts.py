"""Holds Ctrl-C back while something must not be broken off in the middle.

Knows signals and threads; knows no engine.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold SIGINT back until the block has ended; then the handler that was there takes it.

    A second one does not wait. Nothing is held in other threads than the main one, where signals
    never arrive, nor where no Python function handles them.
    """
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if is_main else None
    if handler is None or isinstance(handler, int):
        yield
        return
    received: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            handler(number, frame)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if len(received) == 1:
            handler(received[0], None)
