"""Lets in who has a key.

The keys are compared in constant time. Knows which paths are open to all; knows no endpoint.
"""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from engine.server.errors import ApiError, error_response

OPEN_PATHS = frozenset(
    {
        *("/health", "/ready", "/ping", "/version", "/load", "/metrics"),
        *("/openapi.json", "/docs", "/redoc"),
    }
)
"""What probes, scrapers and routers read; nothing of any request is told there."""


class Authentication:
    """Answers 401 to requests without one of the keys.

    Args:
        app: What answers the others.
        keys: Any of them opens.
        open_paths: Paths that need none.
    """

    def __init__(
        self, app: ASGIApp, keys: Sequence[str], open_paths: frozenset[str] = OPEN_PATHS
    ) -> None:
        self._app = app
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_allowed(scope):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "the API key is missing or wrong: send it as Authorization: Bearer KEY",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error_response(error)(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        if scope["type"] not in ("http", "websocket") or not self._digests:
            return True
        if _route_path(scope) in self._open_paths or scope.get("method") == "OPTIONS":
            return True
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        digest = hashlib.sha256(key.strip()).digest()
        # all are compared, so that the time does not tell which was close
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)


def _route_path(scope: Scope) -> str:
    """The path behind root_path."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root + "/") else path
