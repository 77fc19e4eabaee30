"""Where a core runs: in a process of its own, or in a thread of this one. One interface.

Knows how a core is begun, killed and waited for, and tells its end to the event loop at once. Knows
no message.
"""

import asyncio
import multiprocessing
import signal
import threading
from collections.abc import Callable
from typing import Protocol

import zmq

from engine.core_channel import Addresses, CoreChannel, CoreKilled, private_addresses
from engine.core_process import run_core, serve_core
from engine.core_signs import SignsOfLife
from engine.served_core import CoreSpec

OnEnd = Callable[[], None]


class CoreHost(Protocol):
    """Where a core runs.

    Attributes:
        addresses: Of the line to it.
        context: Of the front's sockets.
        signs: What the core tells of its life; a thread's does not beat.
    """

    addresses: Addresses
    context: "zmq.Context[zmq.Socket[bytes]]"
    signs: SignsOfLife

    def start(self, on_end: OnEnd) -> None:
        """Begin; `on_end` is called in the running event loop once the core is gone."""
        ...

    @property
    def how_it_ended(self) -> str:
        """Exit code or signal, in words; only once it is gone."""
        ...

    @property
    def may_have_told(self) -> bool:
        """Whether it had the time to say why it ended."""
        ...

    def kill(self) -> None:
        """End it as kill -9 does."""
        ...

    def close(self) -> None:
        """Give back what stands around it; only once it is gone."""
        ...


class ProcessHost:
    """A process of its own, started by spawning.

    Args:
        spec: Which core.
    """

    def __init__(self, spec: CoreSpec) -> None:
        self.addresses = private_addresses()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        spawn = multiprocessing.get_context("spawn")
        self.signs = SignsOfLife(lambda: spawn.Value("d", 0.0, lock=False))
        self._process = spawn.Process(
            target=run_core,
            args=(spec, self.addresses, self.signs),
            name="EngineCore",
            daemon=True,
        )
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, on_end: OnEnd) -> None:
        """Begin."""
        # Ctrl-C must not reach it before it can say that it does not care.
        old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._process.sentinel, self._ended, on_end)

    def _ended(self, on_end: OnEnd) -> None:
        self._unwatch()
        self._process.join()
        on_end()

    def _unwatch(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._process.sentinel)
            self._loop = None

    @property
    def how_it_ended(self) -> str:
        """Exit code or signal."""
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"killed by signal {-code}, {_signal_name(-code)}"
        return f"exit code {code}"

    @property
    def may_have_told(self) -> bool:
        """Whether no signal ended it."""
        return (self._process.exitcode or 0) >= 0

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def close(self) -> None:
        """Remove the sockets."""
        self._unwatch()
        if self._process.exitcode is not None:
            self._process.close()
        self.context.term()
        self.addresses.remove_folder()


class ThreadHost:
    """A thread of this process: for tests and debuggers.

    Args:
        spec: Which core.
    """

    addresses = Addresses("inproc://to_core", "inproc://to_front")

    def __init__(self, spec: CoreSpec) -> None:
        self.signs = SignsOfLife()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._spec = spec
        self._killed = threading.Event()
        self._status: int | None = None
        self._on_end: OnEnd | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="EngineCore", daemon=True)

    def start(self, on_end: OnEnd) -> None:
        """Begin."""
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def _run(self) -> None:
        try:
            with CoreChannel(self.addresses, self.context, self._killed) as channel:
                self._status = serve_core(self._spec, channel, self.signs)
        except CoreKilled:
            pass
        finally:
            assert self._loop is not None
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._ended)

    def _ended(self) -> None:
        self._thread.join()
        assert self._on_end is not None
        self._on_end()

    @property
    def how_it_ended(self) -> str:
        """As of a process."""
        return "killed" if self._status is None else f"exit code {self._status}"

    @property
    def may_have_told(self) -> bool:
        """Whether it was not killed."""
        return self._status is not None

    def kill(self) -> None:
        """End it when it next looks at its messages; the caller wakes it."""
        self._killed.set()

    def close(self) -> None:
        """Give back the sockets' context."""
        self.context.term()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
