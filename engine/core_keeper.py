"""Keeps one core after the other: start, death, restart, end.

Knows whether a core serves, and why not. Knows no request.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from engine.core_client import CoreClient, OnStep
from engine.core_messages import CoreInfo, FrontMessage
from engine.core_signs import SignsOfLife
from engine.errors import SHUT_DOWN, EngineDeadError
from engine.served_core import CoreSpec
from workbench.errors import WorkbenchError

STARTED_AGAIN = "the engine core is started again: try again later"


class CoreKeeper:
    """See the module. Belongs to the event loop that is running.

    Args:
        spec: Which core.
        in_thread: In a thread of this process.
        start_timeout: Most seconds that a start may take.
        on_step: Takes the outputs of a step, in order.
        on_ready: Called with the facts of each core that has begun to serve.
        on_dead: Called with the reason when a core serves no more, but for `shutdown`.

    Attributes:
        why_dead: Why no core serves, in one line; None while one does.
    """

    def __init__(
        self,
        spec: CoreSpec,
        *,
        in_thread: bool,
        start_timeout: float,
        on_step: OnStep,
        on_ready: Callable[[CoreInfo], None],
        on_dead: Callable[[str], None],
    ) -> None:
        self._spec = spec
        self._in_thread = in_thread
        self._start_timeout = start_timeout
        self._on_step = on_step
        self._on_ready = on_ready
        self._on_dead = on_dead
        self._client: CoreClient | None = None
        self._lock = asyncio.Lock()
        self._dead = asyncio.Event()
        self._is_closed = False
        self.why_dead: str | None = SHUT_DOWN

    async def start(self) -> None:
        """Start a core and wait until it takes requests; see AsyncLLM.start."""
        if self._is_closed:
            raise EngineDeadError(SHUT_DOWN)
        client = CoreClient(self._spec, self._in_thread, self._on_step, self._note_dead)
        self._client = client
        try:
            info = await client.start(self._start_timeout)
        except WorkbenchError as error:
            self.why_dead = f"the engine core could not start ({error}): start it again"
            raise
        self.why_dead = None
        self._dead.clear()
        self._on_ready(info)

    async def restart(self) -> None:
        """See AsyncLLM.restart."""
        is_first = not self._lock.locked()
        async with self._lock:
            if self.why_dead is None and not is_first:
                return
            if self._client is not None:
                await self._client.kill()
            if self.why_dead is None:
                self._note_dead(STARTED_AGAIN)
            await self.start()

    async def shutdown(self, before: Callable[[], Awaitable[None]]) -> None:
        """End the core for good; a second call does nothing.

        Args:
            before: What is done once no new request is taken.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self.why_dead = self.why_dead or SHUT_DOWN
        try:
            await before()
        finally:
            if self._client is not None:
                await self._client.shutdown()
            self._dead.set()

    @property
    def signs(self) -> SignsOfLife:
        """What the core tells of its life; where none serves, nothing."""
        if self._client is None or self.why_dead is not None:
            return SignsOfLife()
        return self._client.signs

    def check_alive(self) -> None:
        """Raise EngineDeadError unless a core serves."""
        if self.why_dead is not None:
            raise EngineDeadError(self.why_dead)

    async def wait_dead(self) -> str:
        """See AsyncLLM.wait_dead."""
        await self._dead.wait()
        return self.why_dead or SHUT_DOWN

    def send(self, message: FrontMessage) -> None:
        """Send; what is sent to a dead core is lost."""
        if self._client is not None:
            self._client.send(message)

    def send_encoded(self, data: bytes) -> None:
        """The same with a message that is bytes already."""
        if self._client is not None:
            self._client.send_encoded(data)

    async def call(self, name: str, *args: Any) -> Any:
        """See AsyncLLM.call."""
        self.check_alive()
        assert self._client is not None
        return await self._client.call(name, *args)

    def kill(self) -> None:
        """End the core as kill -9 does; its death is noticed as any other."""
        if self._client is not None:
            self._client.kill_core()

    def _note_dead(self, reason: str) -> None:
        if self.why_dead is None:
            self.why_dead = reason
        self._on_dead(reason)
        self._dead.set()
