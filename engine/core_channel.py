"""The two ends of the line between front and core: two one-way ZMQ sockets, msgpack in them.

The core's end may wait for messages; the front's end lives in an event loop, and what it sends in
one turn of the loop travels together. Sending never waits. Knows bytes and sockets, not what a
message means.
"""

import asyncio
import math
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import msgspec
import zmq

from engine.core_messages import CoreMessage, FrontMessage

LONGEST_SOCKET_PATH = 100
"""Characters; a Unix socket's address holds 107."""
LINGER_MS = 2000
IPC = "ipc://"
FOLDER_PREFIX = "workbench-core-"
READABLE = int(zmq.POLLIN)


class CoreKilled(BaseException):
    """The thread that a core runs in was told to end as a killed process does."""


class Addresses(msgspec.Struct, frozen=True):
    """Where the two sockets of a line are bound.

    Attributes:
        to_core: The core binds, the front connects.
        to_front: The front binds, the core connects.
    """

    to_core: str
    to_front: str

    def remove_folder(self) -> None:
        """Delete the folder of the sockets, where they have one."""
        if self.to_core.startswith(IPC):
            folder = Path(self.to_core.removeprefix(IPC)).parent
            shutil.rmtree(folder, ignore_errors=True)


def private_addresses() -> Addresses:
    """Addresses in a new folder that only this user may enter; `remove_folder` takes it away."""
    folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX)
    if len(folder) + len("/to_front") > LONGEST_SOCKET_PATH:
        Path(folder).rmdir()
        folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/tmp")
    return Addresses(f"{IPC}{folder}/to_core", f"{IPC}{folder}/to_front")


class CoreChannel:
    """The core's end.

    Args:
        addresses: Of the line.
        context: Shared with the front for a line inside one process; None: an own one.
        killed: Set by whoever wants this end to raise CoreKilled at its next call; an empty
            message wakes it.
    """

    def __init__(
        self,
        addresses: Addresses,
        context: "zmq.Context[zmq.Socket[bytes]] | None" = None,
        killed: threading.Event | None = None,
    ) -> None:
        self._own_context = zmq.Context() if context is None else None
        used = context or self._own_context
        assert used is not None
        self._killed = killed or threading.Event()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(FrontMessage).decode
        self._incoming = used.socket(zmq.PULL)
        self._incoming.set_hwm(0)
        self._incoming.bind(addresses.to_core)
        self._outgoing = used.socket(zmq.PUSH)
        self._outgoing.set_hwm(0)
        self._outgoing.linger = LINGER_MS
        self._outgoing.connect(addresses.to_front)

    def receive(self, wait_s: float) -> list[FrontMessage]:
        """All messages that are there.

        Args:
            wait_s: Seconds to wait for the first one; 0 or inf for most.
        """
        messages: list[FrontMessage] = []
        if wait_s:
            self._incoming.poll(None if math.isinf(wait_s) else round(wait_s * 1000))
        # asked before every step, and cheaper than to be told that nothing is there
        while _has_message(self._incoming):
            parts = self._incoming.recv_multipart()
            if self._killed.is_set():
                raise CoreKilled
            messages += [self._decode(data) for data in parts if data]
        return messages

    def send(self, message: CoreMessage) -> None:
        """Send; what nobody will take any more is lost."""
        if self._killed.is_set():
            raise CoreKilled
        with suppress(zmq.Again):
            self._outgoing.send(self._encode(message), zmq.NOBLOCK)

    def close(self) -> None:
        """Give back the sockets; what was sent may still travel."""
        self._incoming.close(0)
        self._outgoing.close()
        if self._own_context is not None:
            self._own_context.term()

    def __enter__(self) -> "CoreChannel":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class FrontChannel:
    """The front's end; belongs to the running event loop.

    Args:
        addresses: Of the line.
        context: Of the sockets.
    """

    def __init__(self, addresses: Addresses, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self._loop = asyncio.get_running_loop()
        self._addresses = addresses
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(CoreMessage).decode
        self._outgoing = context.socket(zmq.PUSH)
        self._outgoing.set_hwm(0)
        self._outgoing.linger = 0
        self._incoming = context.socket(zmq.PULL)
        self._incoming.set_hwm(0)
        self._incoming.linger = 0
        self._incoming.bind(addresses.to_front)
        self._waiter: asyncio.Future[None] | None = None
        self._unsent: list[bytes] = []
        self._fd = int(self._incoming.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._wake)

    def connect(self) -> None:
        """Make the way to the core, once the core has bound its socket."""
        self._outgoing.connect(self._addresses.to_core)

    def send(self, message: FrontMessage) -> None:
        """Send; never waits. What nobody will take any more is lost."""
        self.send_encoded(self._encode(message))

    def wake_core(self) -> None:
        """Send an empty message."""
        self.send_encoded(b"")

    def send_encoded(self, data: bytes) -> None:
        """Send a message that is bytes already."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)

    def _flush(self) -> None:
        parts, self._unsent = self._unsent, []
        with suppress(zmq.Again):
            if not self._outgoing.closed:
                self._outgoing.send_multipart(parts, zmq.NOBLOCK)

    def receive_now(self) -> CoreMessage | None:
        """The next message; None if none is there."""
        if not _has_message(self._incoming):
            return None
        message: CoreMessage = self._decode(self._incoming.recv(zmq.NOBLOCK))
        return message

    async def wait_readable(self) -> None:
        """Wait until a message may be there; only after `receive_now` has returned None."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Give back the sockets."""
        if not self._incoming.closed:
            self._loop.remove_reader(self._fd)
            self._incoming.close(0)
            self._outgoing.close(0)


def _has_message(socket: "zmq.Socket[bytes]") -> bool:
    return bool(int(socket.get(zmq.EVENTS)) & READABLE)
