"""Puts the server together: endpoints, errors, keys, admission, and what extends it.

Knows the order of the layers; each layer knows its own affair.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from engine.async_llm import AsyncLLM
from engine.server.admission import Admission
from engine.server.auth import OPEN_PATHS, Authentication
from engine.server.context import ServerContext
from engine.server.errors import install_error_handlers
from engine.server.openapi import DocumentedApp
from engine.server.request_context import REQUEST_ID_HEADER, RequestContextMiddleware
from engine.server.routes import install_routes
from engine.server.settings import ServerSettings
from engine.server.state import ServerState
from engine.server.token_facts import TokenFacts
from engine.server.version import version


class Extension(Protocol):
    """Something that adds to a server: metrics, logs, traces, a view.

    It may have an attribute `open_paths`, a set of paths that need no API key.
    """

    def install(self, app: FastAPI, llm: AsyncLLM, settings: ServerSettings) -> None:
        """Add routes, middlewares and listeners. `app.state.server` is the ServerState."""
        ...


def build_app(
    llm: AsyncLLM, settings: ServerSettings, *, extensions: Sequence[Extension | Any] = ()
) -> FastAPI:
    """The server as an ASGI app.

    Args:
        llm: A started engine.
        settings: Of the server.
        extensions: Added in this order; their middlewares stand outside of the server's own.
    """
    info = llm.info
    state = ServerState(info.max_model_len, info.max_num_seqs, info.num_kv_blocks)
    llm.add_listener(state)
    app = DocumentedApp(
        title="LLM serving workbench",
        version=version(),
        description="An OpenAI-compatible server in front of a real or a simulated engine.",
        redirect_slashes=False,
    )
    app.state.server = state
    install_routes(app, ServerContext(llm, settings, state, TokenFacts.of(llm.tokenizer)))
    install_error_handlers(app, settings.retry_after)
    # the last one added stands outermost
    app.add_middleware(Admission, llm=llm, settings=settings, state=state)
    open_paths = OPEN_PATHS.union(*(getattr(each, "open_paths", ()) for each in extensions))
    app.add_middleware(Authentication, keys=settings.api_keys, open_paths=open_paths)
    for extension in extensions:
        extension.install(app, llm, settings)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=settings.allowed_methods,
            allow_headers=settings.allowed_headers,
            allow_credentials=settings.allow_credentials,
            expose_headers=[REQUEST_ID_HEADER],
        )
    app.add_middleware(RequestContextMiddleware)
    return app
