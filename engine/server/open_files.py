"""How many files this process may have open, and what it says when none is left.

Each connection is one. Knows limits of the system; knows no server.
"""

import asyncio
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

logger = logging.getLogger(__name__)

WANTED_FILES = 65536
FEW_FILES = 4096
OWN_FILES = 96
"""Files that a server has open without any connection, generously."""
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
WATCH_S = 1.0
TELL_EVERY_S = 30.0


def raise_file_limit() -> int:
    """Let this process have as many open files as it may.

    Returns:
        The limit. A low one is logged, with the cure.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        logger.warning(
            "only %d files may be open, so about %d connections fit: raise the hard limit "
            "(ulimit -Hn) before the server starts",
            soft,
            max(soft - OWN_FILES, 0),
        )
    return soft


def is_shortage(error: BaseException) -> bool:
    """Whether an error means that this machine or process has run out, and nobody else failed."""
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        return True
    # a name is looked up in files, and their lack is told as an unknown name
    cause = getattr(error, "os_error", error)
    return isinstance(cause, socket.gaierror) and not can_open()


def can_open() -> bool:
    """Whether one more file may be opened now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in SHORTAGES
    return True


class OpenFiles:
    """Says in the log that no file is left: one line, and not again for a while.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at = float("-inf")

    def tell(self) -> None:
        """None is left."""
        now = self._clock()
        if now - self._told_at < TELL_EVERY_S:
            return
        self._told_at = now
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        logger.error(
            "no file is left for a connection: %d may be open, and at most %d (ulimit -Hn): raise "
            "the hard limit before the start, or send fewer requests at once",
            soft,
            hard,
        )

    async def watch(self) -> None:
        """Notice it also where the event loop closes connections without a word; never ends."""
        self.quiet(asyncio.get_running_loop())
        while True:
            if not can_open():
                self.tell()
            await asyncio.sleep(WATCH_S)

    def quiet(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a loop that cannot accept say so once, and not with a traceback for each try."""
        loop.set_exception_handler(self._on_error)

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and is_shortage(error):
            self.tell()
        else:
            loop.default_exception_handler(context)


async def stop_watching(task: "asyncio.Task[None]") -> None:
    """End a task of `OpenFiles.watch`."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
