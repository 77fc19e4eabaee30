"""Where a server shows its live view: `/view`, and `/view/events` behind it.

The page itself tells nothing and is open to all; the events need an API key where the server has
any. Knows the paths and the headers.
"""

from contextlib import suppress

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send

from engine.async_llm import AsyncLLM
from engine.server.settings import ServerSettings
from engine.server.sse import EventStream
from engine.server.view.feed import ViewFeed
from engine.server.view.page import LIVE_TITLE, live_page, policy


def install(app: FastAPI, llm: AsyncLLM, settings: ServerSettings) -> None:
    """Add the live view to a server."""
    state = app.state.server
    feed = ViewFeed(
        llm,
        _facts(llm, settings),
        lambda: state.is_draining and not llm.num_unfinished_requests,
    )
    llm.add_listener(feed)
    app.state.view_feed = feed
    headers = {
        "Content-Security-Policy": policy() + "; frame-ancestors 'none'",
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }

    @app.get("/view", include_in_schema=False)
    @app.get("/view/", include_in_schema=False)
    async def view(request: Request) -> HTMLResponse:
        # A key that somebody has put into the address must not get into an access log.
        request.scope["query_string"] = b""
        return HTMLResponse(live_page(), headers=headers)

    @app.get("/view/events", include_in_schema=False)
    async def view_events() -> _ViewStream:
        return _ViewStream(feed.events())


class _ViewStream(EventStream):
    """A stream that most viewers end by leaving."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):
            await super().__call__(scope, receive, send)


def _facts(llm: AsyncLLM, settings: ServerSettings) -> dict[str, object]:
    info = llm.info
    world = "the engine" if info.world == "engine" else "the simulator"
    pace = "" if info.speed == 1 else f" at {info.speed:g} times its speed"
    limits = f"at most {info.max_num_seqs} requests and {info.max_num_batched_tokens} tokens a step"
    return {
        "title": LIVE_TITLE,
        "model": settings.model_name,
        "subtitle": f"{settings.model_name} on {world}{pace}; {limits}",
        "needs_key": bool(settings.api_keys),
        "notes": ""
        if info.speed == 1
        else f"Times are those of the wall clock: simulated seconds take 1/{info.speed:g} of one.",
    }
