"""A gRPC server around a scripted engine, and a client on a channel to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import grpc

from engine.async_llm import AsyncLLM
from engine.server.grpc import start_grpc
from engine.server.grpc.schema import Schema, load_schema
from engine.server.settings import ServerSettings
from engine.server.state import ServerState
from tests.engine.served import LONGEST_TEST_S, served_llm

schema_of_client = cache(load_schema)


@dataclass
class Session:
    """What a test works with."""

    llm: AsyncLLM
    server: Any
    state: ServerState
    channel: Any
    schema: Schema
    stub: Any

    async def until_all_is_free(self) -> None:
        """Wait until no request is open and none holds a KV block."""
        await until(lambda: self.llm.num_unfinished_requests == 0)
        while (await self.llm.call("block_usage"))[0]:
            await asyncio.sleep(0.001)

    def endless(self, **fields: Any) -> Any:
        """A request that streams for long."""
        return self.schema.GenerateRequest(
            text="abc", stream=True, sampling_params={"max_tokens": 2000}, **fields
        )


@asynccontextmanager
async def grpc_session(
    server_settings: ServerSettings | None = None, **settings: Any
) -> AsyncIterator[Session]:
    async with served_llm(**settings) as llm:
        info = llm.info
        state = ServerState(info.max_model_len, info.max_num_seqs, info.num_kv_blocks)
        llm.add_listener(state)
        server = await start_grpc(llm, server_settings or ServerSettings(), 0, state=state)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        schema = schema_of_client()
        try:
            yield Session(llm, server, state, channel, schema, schema.stub(channel))
        finally:
            await channel.close()
            await server.stop(0.0)


def run(
    body: Callable[[Session], Awaitable[None]],
    server_settings: ServerSettings | None = None,
    **settings: Any,
) -> None:
    """Run a test's body; settings as in `served_llm`."""

    async def bounded() -> None:
        async with (
            asyncio.timeout(LONGEST_TEST_S),
            grpc_session(server_settings, **settings) as session,
        ):
            await body(session)

    asyncio.run(bounded())


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; the test's own limit bounds it."""
    while not is_so():
        await asyncio.sleep(0.001)


async def collect(responses: AsyncIterator[Any], into: list[Any]) -> None:
    """Add to a list what comes, until an error ends it."""
    while True:
        into.append(await anext(responses))


async def refused(call: Any) -> tuple[str, str]:
    """Name of the status, and the details, of a call that must fail."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details()
    raise AssertionError("the call went through")
