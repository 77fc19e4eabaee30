"""A gRPC server around an engine: its port, its standard services, its beginning and its end.

Knows addresses and deadlines; what the calls do, `service` knows.
"""

import asyncio
import contextlib
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from engine.async_llm import AsyncLLM
from engine.server.grpc.schema import SERVICE, Schema, load_schema
from engine.server.grpc.service import WorkbenchService
from engine.server.settings import ServerSettings
from engine.server.silence import silence_of
from engine.server.state import ServerState
from workbench.errors import ConfigError

POLL_S = 1.0
"""Seconds between two looks at whether an engine serves again, or the server drains."""
LAST_WORDS_S = 1.0
"""Seconds in which open calls may tell their clients how they ended."""


class GRPCServer:
    """A server that runs; made by `GRPCServer.start`.

    Attributes:
        port: Where it listens.
    """

    port: int

    def __init__(
        self,
        llm: AsyncLLM,
        state: ServerState,
        schema: Schema,
        server: Any,
        port: int,
        settings: ServerSettings,
    ) -> None:
        self.port = port
        self._llm = llm
        self._settings = settings
        self._state = state
        self._server = server
        self._is_serving: bool | None = None
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, pool=schema.pool)
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, llm: AsyncLLM, settings: ServerSettings, state: ServerState, port: int
    ) -> "GRPCServer":
        """Listen on settings.host; port 0 takes a free one.

        Raises:
            ConfigError: The port is taken.
        """
        schema = await asyncio.to_thread(load_schema)
        options = [
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            # else a second server on the same port would silently share its calls
            ("grpc.so_reuseport", 0),
        ]
        server = grpc.aio.server(options=options)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{port}"
        server.add_generic_rpc_handlers(
            (WorkbenchService(llm, settings, state, schema).handlers(),)
        )
        try:
            if settings.ssl_keyfile is None or settings.ssl_certfile is None:
                bound = server.add_insecure_port(address)
            else:
                bound = server.add_secure_port(address, _credentials(settings))
        except RuntimeError as error:
            raise ConfigError(
                f"grpc_port={port} cannot be listened on at {settings.host}: choose another port"
            ) from error
        self = cls(llm, state, schema, server, bound, settings)
        await self._tell_health()
        await server.start()
        self._watch = asyncio.create_task(self._follow_engine())
        return self

    async def stop(self, grace_s: float = LAST_WORDS_S) -> None:
        """Refuse new calls, let open ones end within so many seconds, and cancel the rest.

        Health says NOT_SERVING from the first moment.
        """
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    async def _follow_engine(self) -> None:
        """Let health tell whether there can be answers; of an engine's death, at once."""
        while True:
            if self._llm.is_alive:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._llm.wait_dead()
            else:
                await asyncio.sleep(POLL_S)
            await self._tell_health()

    async def _tell_health(self) -> None:
        silence = silence_of(self._llm, self._settings.max_step_time)
        is_silent = silence.is_longer(self._settings.max_core_silence)
        is_serving = self._llm.is_alive and not is_silent and not self._state.is_draining
        if is_serving is not self._is_serving:
            self._is_serving = is_serving
            states = health_pb2.HealthCheckResponse
            status = states.SERVING if is_serving else states.NOT_SERVING
            for service in ("", SERVICE):
                await self._health.set(service, status)


def _credentials(settings: ServerSettings) -> Any:
    contents = []
    for path in (settings.ssl_keyfile, settings.ssl_certfile):
        assert path is not None
        with open(path, "rb") as file:
            contents.append(file.read())
    return grpc.ssl_server_credentials([(contents[0], contents[1])])
