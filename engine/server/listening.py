"""Where a server listens.

Knows sockets and addresses.
"""

import socket
from collections.abc import Sequence

from engine.server.settings import ServerSettings
from workbench.errors import ConfigError


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket bound to an address; port 0 takes a free one.

    Raises:
        ConfigError: The address is in use, or none of this machine.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"host={host!r} port={port} cannot be listened on ({reason}): choose another port, or "
            "end the program that has it"
        ) from error
    made.set_inheritable(False)
    return made


def url_of(settings: ServerSettings, sockets: Sequence[socket.socket] | None) -> str:
    """The URL of the server, or the path of its Unix socket."""
    if not sockets:
        return f"unix:{settings.uds}"
    scheme = "http" if settings.ssl_certfile is None else "https"
    host, port = sockets[0].getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
