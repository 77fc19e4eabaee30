"""The wish that a server ends, by a signal or by a program.

Knows signals; what a server does about it, `run` knows.
"""

import asyncio
import signal
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """The wish to end: said once, let open requests end; said twice, end them.

    Attributes:
        first, second: Whether it has been said once, and twice.
    """

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def request(self) -> None:
        """Say it once more; in the thread of the server's loop."""
        (self.second if self.first.is_set() else self.first).set()

    def listen(self) -> None:
        """Take signals for it; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._loop = asyncio.get_running_loop()
            for number in SIGNALS:
                self._loop.add_signal_handler(number, self.request)

    def close(self) -> None:
        """Signals mean what they meant before."""
        if self._loop is not None:
            for number in SIGNALS:
                self._loop.remove_signal_handler(number)
