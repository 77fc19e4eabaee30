"""The small endpoints: is it alive, is it ready, how busy is it, what does it serve.

Knows the server's state; knows no request of the engine.
"""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from engine.server.context import ServerContext
from engine.server.errors import unavailable
from engine.server.silence import silence_of
from engine.server.version import version


class Health:
    """The endpoints.

    Args:
        context: The server.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def health(self) -> Response:
        """200 while the engine core lives and gets on, also while the server drains."""
        llm, settings = self._context.llm, self._context.settings
        if not llm.is_alive:
            reason = llm.why_dead or "the engine core is not running"
            raise unavailable(reason, settings.retry_after)
        silence = silence_of(llm, settings.max_step_time)
        if silence.is_longer(settings.max_core_silence):
            limit = f"--max-core-silence {settings.max_core_silence:g}"
            raise unavailable(f"{silence.what} ({limit}): {silence.cure}", settings.retry_after)
        return Response()

    async def ready(self) -> Response:
        """200 while new requests are taken."""
        if self._context.state.is_draining:
            raise unavailable("the server is shutting down", self._context.settings.retry_after)
        await self.health()
        return _json({"status": "ready"})

    async def version(self) -> Response:
        """The program's version."""
        return _json({"version": version()})

    async def load(self) -> Response:
        """How busy the server is."""
        state = self._context.state
        content = {
            "server_load": state.server_load,
            "num_running": state.num_running,
            "num_waiting": state.num_waiting,
            "num_outstanding_tokens": state.num_outstanding_tokens,
            "kv_cache_usage": state.kv_cache_usage,
            "is_draining": state.is_draining,
            "world": self._context.llm.info.world,
        }
        return _json(content)

    async def reset_prefix_cache(self) -> Response:
        """Forget all cached prefixes, unless requests are unfinished."""
        is_reset = await self._context.llm.call("reset_prefix_cache")
        return _json({"is_reset": bool(is_reset)})

    async def models(self) -> Response:
        """All names of the model."""
        names = self._context.settings.served_model_names
        return _json({"object": "list", "data": [self._card(name) for name in names]})

    async def model(self, request: Request) -> Response:
        """One name of the model."""
        name = str(request.path_params["model_id"])
        self._context.check_model(name)
        return _json(self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._context.created,
            "owned_by": "workbench",
            "root": self._context.llm.info.model or name,
            "parent": None,
            "max_model_len": self._context.llm.info.max_model_len,
            "permission": [],
        }


def _json(content: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
