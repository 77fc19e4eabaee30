"""Which request the running code works for: its id and the trace that it belongs to.

Set by a middleware for the time of an HTTP request, read by log formatters and by tracing. The id
is the client's X-Request-Id where it is harmless, else a new one; the response carries it. Knows
nothing of logs, traces or engines.
"""

import re
import uuid
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER = "X-Request-Id"
_HARMLESS = re.compile(rb"[\x21-\x7e]{1,128}")
_TRACE_HEADERS = (b"traceparent", b"tracestate")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Where running code belongs.

    Attributes:
        request_id: The client's name for its request, or ours.
        trace_headers: The W3C headers traceparent and tracestate, as far as they came.
    """

    request_id: str
    trace_headers: dict[str, str]


_CURRENT: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def current_context() -> RequestContext | None:
    """The request that the running code works for; None outside of any."""
    return _CURRENT.get()


def current_request_id() -> str | None:
    """Its id; None outside of any."""
    context = _CURRENT.get()
    return None if context is None else context.request_id


def enter_context(context: RequestContext) -> None:
    """Say that the code that runs from here on, in this task, works for a request."""
    _CURRENT.set(context)


class RequestContextMiddleware:
    """Sets the context of every HTTP request and puts its id into the response.

    Args:
        app: What answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = context_from_headers(scope["headers"])

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message.setdefault("headers", [])).setdefault(
                    REQUEST_ID_HEADER, context.request_id
                )
            await send(message)

        token = _CURRENT.set(context)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            _CURRENT.reset(token)


def context_from_headers(headers: list[tuple[bytes, bytes]]) -> RequestContext:
    """The context that headers with lower-case names describe; a new id if they bring none."""
    request_id = ""
    trace_headers = {}
    for name, value in headers:
        if name == b"x-request-id" and _HARMLESS.fullmatch(value):
            request_id = value.decode("ascii")
        elif name in _TRACE_HEADERS:
            trace_headers[name.decode("ascii")] = value.decode("latin-1")
    return RequestContext(request_id or uuid.uuid4().hex, trace_headers)
