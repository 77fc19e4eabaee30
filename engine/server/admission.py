"""Lets work in, or says why not now: the server drains, its engine is dead, its queue is full.

Also counts the work in hand, and ends quietly where a client has left. Knows which paths are work.
"""

import logging
from contextlib import nullcontext

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.async_llm import AsyncLLM
from engine.server.errors import ApiError, error_response, unavailable
from engine.server.settings import ServerSettings
from engine.server.state import ServerState

logger = logging.getLogger(__name__)

QUEUED_PATHS = ("/v1/completions", "/v1/chat/completions")
WORK_PATHS = (*QUEUED_PATHS, "/tokenize", "/detokenize")


class Admission:
    """Answers 503 to work that cannot be taken.

    Args:
        app: What does the work.
        llm: The engine.
        settings: Of the server.
        state: Counts.
    """

    def __init__(
        self, app: ASGIApp, llm: AsyncLLM, settings: ServerSettings, state: ServerState
    ) -> None:
        self._app = app
        self._llm = llm
        self._settings = settings
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith(WORK_PATHS):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal()
        if refusal is not None:
            await error_response(refusal)(scope, receive, send)
            return
        self._state.begin_work()
        is_queued = scope["path"].endswith(QUEUED_PATHS)
        try:
            with self._state.entering() if is_queued else nullcontext():
                await self._app(scope, receive, send)
        except ClientDisconnect:
            logger.debug("the client left before it had its answer")
        finally:
            self._state.end_work()

    def _refusal(self) -> ApiError | None:
        retry_after = self._settings.retry_after
        if self._state.is_draining:
            return unavailable("the server is shutting down", retry_after, close=True)
        if not self._llm.is_alive:
            why = self._llm.why_dead or "the engine core is not running"
            return unavailable(why, retry_after)
        limit = self._settings.max_queue
        if not self._state.has_room(limit):
            return unavailable(
                f"{self._state.num_queued} requests wait already, and max_queue={limit}: try again "
                "later",
                retry_after,
            )
        return None
