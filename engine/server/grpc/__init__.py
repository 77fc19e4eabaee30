"""The gRPC server: the same engine as the HTTP server's, for clients that speak gRPC.

Its packages are an extra, imported when a server is started.
"""

from typing import TYPE_CHECKING

from workbench.errors import ConfigError

if TYPE_CHECKING:
    from engine.async_llm import AsyncLLM
    from engine.server.grpc.server import GRPCServer
    from engine.server.settings import ServerSettings
    from engine.server.state import ServerState

EXTRA = "pip install -e '.[grpc]'"


async def start_grpc(
    llm: "AsyncLLM",
    settings: "ServerSettings",
    port: int,
    *,
    state: "ServerState | None" = None,
) -> "GRPCServer":
    """Start a gRPC server beside the HTTP server; `await server.stop(grace_s)` ends it.

    Args:
        llm: The engine.
        settings: Of the HTTP server: host, keys, names of the model, limits, TLS.
        port: 0 takes a free one; see `server.port`.
        state: The HTTP server's, whose draining counts here too; None: one of its own.

    Raises:
        ConfigError: The packages are missing, or the port is taken.
    """
    try:
        from engine.server.grpc.server import GRPCServer
        from engine.server.state import ServerState
    except ImportError as error:
        raise ConfigError(f"gRPC needs packages that are not here ({error}): {EXTRA}") from error
    if state is None:
        info = llm.info
        state = ServerState(info.max_model_len, info.max_num_seqs, info.num_kv_blocks)
        llm.add_listener(state)
    return await GRPCServer.start(llm, settings, state, port)
