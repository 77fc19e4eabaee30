"""The front's side of one core: its start, its messages, its calls and its end.

Made anew for every core. Knows messages, and that a core may die at any time; knows no request.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from importlib import import_module
from itertools import count
from typing import Any

from engine.core_channel import FrontChannel
from engine.core_host import CoreHost, ProcessHost, ThreadHost
from engine.core_messages import (
    Call,
    CallResult,
    CoreFailed,
    CoreInfo,
    FrontMessage,
    Ready,
    RowsTaken,
    Shutdown,
    StepOutputs,
    rows_of,
)
from engine.core_signs import SignsOfLife
from engine.errors import SHUT_DOWN, EngineDeadError, InputError, one_line
from engine.served_core import CoreSpec
from workbench.errors import WorkbenchError

logger = logging.getLogger(__name__)

LAST_WORDS_S = 0.3
"""Seconds in which a core that ended by itself may still be heard to say why."""
ROWS_TOLD_AT_ONCE = 512
"""Rows that the front takes in before it tells the core so."""
END_S = 10.0
"""Seconds that a core may take to end."""

OnStep = Callable[[StepOutputs], Awaitable[None]]
OnDead = Callable[[str], None]


class CoreClient:
    """One core, from its start to its end.

    Args:
        spec: Which core.
        in_thread: In a thread of this process.
        on_step: Takes the outputs of a step, in order.
        on_dead: Called once, with the reason, when a core that was ready dies of itself.

    Attributes:
        why_dead: Why it takes no messages, in one line; None while it does.
    """

    def __init__(self, spec: CoreSpec, in_thread: bool, on_step: OnStep, on_dead: OnDead) -> None:
        self._loop = asyncio.get_running_loop()
        self._host: CoreHost = ThreadHost(spec) if in_thread else ProcessHost(spec)
        self._channel = FrontChannel(self._host.addresses, self._host.context)
        self._on_step = on_step
        self._on_dead = on_dead
        self._ready: asyncio.Future[CoreInfo] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._call_ids = count()
        self._receiver: asyncio.Task[None] | None = None
        self._closer: asyncio.Task[None] | None = None
        self._num_rows_taken = 0
        self.why_dead: str | None = None

    async def start(self, timeout: float) -> CoreInfo:
        """Start the core and wait until it is ready; see AsyncLLM.start."""
        try:
            self._host.start(self._note_gone)
        except BaseException:
            self._gone.set_result(None)
            await self._close()
            raise
        try:
            self._receiver = self._loop.create_task(self._receive())
            async with asyncio.timeout(timeout):
                return await self._ready
        except TimeoutError:
            raise EngineDeadError(
                f"the core was not ready after {timeout:g} s: allow more with start_timeout"
            ) from None
        finally:
            if self._ready.cancelled() or self._ready.exception() is not None:
                await self.kill()

    @property
    def signs(self) -> SignsOfLife:
        """What the core tells of its life."""
        return self._host.signs

    def send(self, message: FrontMessage) -> None:
        """Send; what is sent to a dead core is lost."""
        if self.why_dead is None:
            self._channel.send(message)

    def send_encoded(self, data: bytes) -> None:
        """The same with a message that is bytes already."""
        if self.why_dead is None:
            self._channel.send_encoded(data)

    async def call(self, name: str, *args: Any) -> Any:
        """See AsyncLLM.call."""
        if self.why_dead is not None:
            raise EngineDeadError(self.why_dead)
        call_id = next(self._call_ids)
        future = self._calls[call_id] = self._loop.create_future()
        try:
            self._channel.send(Call(call_id, name, list(args)))
            return await future
        finally:
            del self._calls[call_id]

    def kill_core(self) -> None:
        """End the core as kill -9 does; its death is noticed as any other."""
        if not self._gone.done():
            self._host.kill()
            self._channel.wake_core()

    async def kill(self) -> None:
        """End the core at once, and wait until it is gone."""
        self.why_dead = self.why_dead or SHUT_DOWN
        self.kill_core()
        await self._close()

    async def shutdown(self) -> None:
        """Tell the core to end, and wait until it is gone."""
        if not self._ready.done():
            self.kill_core()
        elif self.why_dead is None:
            self._channel.send(Shutdown())
        self.why_dead = self.why_dead or SHUT_DOWN
        await self._close()

    async def _close(self) -> None:
        """Wait until the core is gone (kill it if it will not), and give everything back."""
        if self._closer is None:
            self._closer = self._loop.create_task(self._wait_and_close())
        await asyncio.shield(self._closer)

    async def _wait_and_close(self) -> None:
        await asyncio.wait([self._gone], timeout=END_S)
        if not self._gone.done():
            self.kill_core()
            await asyncio.wait([self._gone])
        if not self._ready.done():
            self._ready.set_exception(EngineDeadError(SHUT_DOWN))
        if self._receiver is not None:
            self._receiver.cancel()
            await asyncio.wait([self._receiver])
        self._fail_calls()
        self._channel.close()
        self._host.close()

    async def _receive(self) -> None:
        try:
            await self._take_messages()
        except Exception as error:
            logger.error("messages of the core cannot be taken in", exc_info=error)
            self._die(CoreFailed(f"its outputs could not be taken in: {one_line(error)}"))
            self.kill_core()

    async def _take_messages(self) -> None:
        channel = self._channel
        while True:
            message = channel.receive_now()
            if message is None:
                await channel.wait_readable()
            elif isinstance(message, StepOutputs):
                await self._on_step(message)
                self._count_rows(rows_of(message))
            elif isinstance(message, CallResult):
                self._answer(message)
            elif isinstance(message, Ready):
                channel.connect()
                if not self._ready.done():
                    self._ready.set_result(message.info)
            else:
                self._die(message)

    def _count_rows(self, num_rows: int) -> None:
        """Tell the core now and then how far the front has come."""
        self._num_rows_taken += num_rows
        if self._num_rows_taken >= ROWS_TOLD_AT_ONCE:
            self.send(RowsTaken(self._num_rows_taken))
            self._num_rows_taken = 0

    def _answer(self, result: CallResult) -> None:
        future = self._calls.get(result.call_id)
        if future is None or future.done():
            return
        if result.error is None:
            future.set_result(result.value)
        else:
            future.set_exception(InputError(result.error))

    def _note_gone(self) -> None:
        """The core is gone; one that was not killed may have said why."""
        self._gone.set_result(None)
        if self.why_dead is None:
            wait = LAST_WORDS_S if self._host.may_have_told else 0.0
            self._loop.call_later(wait, self._die, CoreFailed(self._host.how_it_ended))

    def _die(self, failed: CoreFailed) -> None:
        if self.why_dead is not None:
            return
        self.why_dead = f"the engine core died ({failed.reason}): start it again"
        if not self._ready.done():
            self._ready.set_exception(_start_error(failed))
            return
        self._fail_calls()
        self._on_dead(self.why_dead)
        self._closer = self._loop.create_task(self._wait_and_close())

    def _fail_calls(self) -> None:
        for future in self._calls.values():
            if not future.done():
                future.set_exception(EngineDeadError(self.why_dead or SHUT_DOWN))


def _start_error(failed: CoreFailed) -> WorkbenchError:
    """What a factory raised, as the class that it was."""
    if failed.error is not None:
        module, _, name = failed.error.partition(":")
        kind = getattr(import_module(module), name, None)
        if isinstance(kind, type) and issubclass(kind, WorkbenchError):
            return kind(failed.reason)
    return EngineDeadError(f"the engine core could not start: {failed.reason}")
