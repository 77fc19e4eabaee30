"""Open files: as many as may be, and one line where none is left."""

import asyncio
import errno
import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.server.open_files import (
    TELL_EVERY_S,
    OpenFiles,
    can_open,
    is_shortage,
    raise_file_limit,
    stop_watching,
)
from tests.engine.server.listening import recorded

LOG = "engine.server.open_files"
NAME_ERROR = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@contextmanager
def no_file_left() -> Iterator[None]:
    """As if every file were taken: those that are open stay so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_files_may_be_open() -> None:
    assert raise_file_limit() == raise_file_limit() >= 256


def test_a_shortage_is_ours_and_other_failures_are_not() -> None:
    for number in (errno.EMFILE, errno.ENFILE):
        assert is_shortage(OSError(number, os.strerror(number)))
    assert not is_shortage(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
    assert not is_shortage(OSError("no number"))
    assert can_open()
    assert not is_shortage(NAME_ERROR)
    with no_file_left():
        assert not can_open()
        assert is_shortage(NAME_ERROR)


def test_it_is_told_once_and_again_after_a_while() -> None:
    times = iter((0.0, 1.0, TELL_EVERY_S - 0.1, TELL_EVERY_S))
    files = OpenFiles(lambda: next(times))
    with recorded(LOG) as records:
        for _ in range(4):
            files.tell()
    assert len(records) == 2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    message = records[0].getMessage()
    assert str(hard) in message
    assert "ulimit -Hn" in message


@pytest.mark.parametrize("is_watching", [True, False])
def test_a_loop_that_cannot_accept_says_one_line(is_watching: bool) -> None:
    async def fail(files: OpenFiles) -> None:
        loop = asyncio.get_running_loop()
        watching = asyncio.ensure_future(files.watch())
        await asyncio.sleep(0)
        for _ in range(50):
            loop.call_exception_handler({
                "message": "socket.accept() out of system resource",
                "exception": OSError(errno.EMFILE, "Too many open files"),
            })  # fmt: skip
        loop.call_exception_handler({"message": "another", "exception": ValueError("x")})
        await stop_watching(watching)

    async def watch(files: OpenFiles) -> None:
        with no_file_left():
            watching = asyncio.ensure_future(files.watch())
            await asyncio.sleep(0)
        await stop_watching(watching)

    with recorded(LOG) as records, recorded("asyncio") as others:
        asyncio.run((watch if is_watching else fail)(OpenFiles(lambda: 0.0)))
    assert [record.levelno for record in records] == [logging.ERROR]
    told = [record for record in others if record.levelno >= logging.ERROR]
    assert len(told) == (0 if is_watching else 1)
