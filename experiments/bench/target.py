"""Where a server is, and how a request to it begins.

Knows URLs and the head of an HTTP request. Opens no connection.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from workbench.errors import ConfigError

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """A server's address. `path` is a prefix of every path, without a slash at its end."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def of(cls, url: str) -> "Target":
        """From http://HOST[:PORT][/PREFIX]. Raises ConfigError."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"{url!r} is no URL ({error}): write http://HOST:PORT") from None
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise ConfigError(f"{url!r} is no URL of a server: write http://HOST:PORT")
        return cls(
            parts.scheme,
            parts.hostname,
            DEFAULT_PORTS[parts.scheme] if port is None else port,
            parts.path.rstrip("/"),
        )

    def tls(self, is_verified: bool = True) -> ssl.SSLContext | None:
        """What encrypts the connection; None for plain http."""
        if self.scheme == "http":
            return None
        context = ssl.create_default_context()
        if not is_verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        """The head of a request without its last empty line and without Content-Length."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {self.path}{path} HTTP/1.1", f"Host: {host}:{self.port}"]
        for name, value in headers.items():
            if any(ord(letter) < 32 or ord(letter) > 126 for letter in name + value):
                raise ConfigError(f"header {name!r} holds a character that none may hold")
            lines.append(f"{name}: {value}")
        return "\r\n".join(lines) + "\r\n"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def with_body(head: str, body: bytes, request_id: str | None = None) -> bytes:
    """A whole request; the id goes into X-Request-Id."""
    own = f"X-Request-Id: {request_id}\r\n" if request_id else ""
    return f"{head}{own}Content-Length: {len(body)}\r\n\r\n".encode("ascii", "replace") + body
