"""Proxies in front of the router, whose word for a client's address is taken.

Knows addresses and networks, and no header.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from workbench.errors import ConfigError

EVERYBODY = "*"


class TrustedProxies:
    """Asked with `in`.

    Args:
        names: Addresses, networks or `*`.

    Raises:
        ConfigError: One of them is none of these.
    """

    def __init__(self, names: Iterable[str]) -> None:
        given = list(names)
        self._is_everybody = EVERYBODY in given
        self._networks = [_network(name) for name in given if name != EVERYBODY]

    def __contains__(self, address: str | None) -> bool:
        if self._is_everybody:
            return True
        try:
            client = ip_address(address or "")
        except ValueError:  # a Unix socket has none
            return False
        if isinstance(client, IPv6Address) and client.ipv4_mapped is not None:
            client = client.ipv4_mapped
        return any(client in network for network in self._networks)


def _network(name: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(name, strict=False)
    except ValueError:
        raise ConfigError(
            f"trusted_proxies={name!r} is no address and no network: write for example "
            "10.0.0.0/8, or * for everybody"
        ) from None
