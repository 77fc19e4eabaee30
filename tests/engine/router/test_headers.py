"""Whose word for a client's address is passed on."""

import asyncio
from collections.abc import Sequence

import pytest
from multidict import CIMultiDict

from engine.router.headers import for_backend
from engine.router.settings import RouterSettings
from engine.router.trusted_proxies import TrustedProxies
from tests.engine.router.fakes import routed
from workbench.errors import ConfigError

SAID = [
    ("Host", "api.example"),
    ("X-Forwarded-For", "1.1.1.1"),
    ("X-Forwarded-For", "2.2.2.2, 3.3.3.3"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "outside.example"),
    ("X-Forwarded-Port", "443"),
    ("Forwarded", "for=1.1.1.1"),
    ("Forwarded", "for=2.2.2.2"),
    ("X-Real-IP", "1.1.1.1"),
]


def sent(said: Sequence[tuple[str, str]], *, is_trusted: bool, address: str) -> CIMultiDict[str]:
    return for_backend(
        CIMultiDict(said), request_id="a", client_address=address, scheme="http",
        is_trusted=is_trusted, authorization=None, keeps_authorization=True,
    )  # fmt: skip


def test_a_proxys_lists_are_joined_and_continued() -> None:
    out = sent(SAID, is_trusted=True, address="10.0.0.1")
    assert out.getall("X-Forwarded-For") == ["1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.1"]
    assert out.getall("Forwarded") == ['for=1.1.1.1, for=2.2.2.2, for="10.0.0.1";proto=http']
    assert out.getall("X-Forwarded-Proto") == ["https"]
    assert out.getall("X-Forwarded-Host") == ["outside.example"]
    assert (out["X-Forwarded-Port"], out["X-Real-IP"]) == ("443", "1.1.1.1")


def test_an_address_of_version_6_is_in_brackets() -> None:
    out = sent([("Forwarded", "for=a")], is_trusted=True, address="::1")
    assert out["Forwarded"] == 'for=a, for="[::1]";proto=http'


def test_a_clients_word_for_itself_is_not_passed_on() -> None:
    out = sent(SAID, is_trusted=False, address="9.9.9.9")
    told = {name: value for name, value in out.items() if name.startswith("X-Forw")}
    assert told == {
        "X-Forwarded-For": "9.9.9.9",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "api.example",
    }
    assert "Forwarded" not in out
    assert "X-Real-IP" not in out


def test_a_client_cannot_take_away_what_the_router_adds() -> None:
    said = [("Connection", "X-Forwarded-For, X-Request-Id"), ("Connection", "Host, close")]
    out = sent(said, is_trusted=True, address="9.9.9.9")
    assert (out["X-Forwarded-For"], out["X-Request-Id"]) == ("9.9.9.9", "a")


def test_several_headers_reach_the_backend_as_one() -> None:
    async def test() -> None:
        async with routed(1) as it, routed(1, trusted_proxies=()) as strict:
            headers = CIMultiDict([("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "2.2.2.2")])
            for router in (it, strict):
                await router.client.post(router.url + "/v1/completions", headers=headers)
            seen = it.servers[0].seen[0].headers
            assert seen.getall("X-Forwarded-For") == ["1.1.1.1, 2.2.2.2, 127.0.0.1"]
            assert strict.servers[0].seen[0].headers["X-Forwarded-For"] == "127.0.0.1"

    asyncio.run(test())


@pytest.mark.parametrize(
    ("names", "address", "is_in"),
    [
        (("10.0.0.0/8",), "10.2.3.4", True),
        (("10.0.0.0/8",), "::ffff:10.2.3.4", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("::1", "127.0.0.1"), "::1", True),
        (("*",), "11.0.0.1", True),
        ((), "127.0.0.1", False),
        (("127.0.0.0/8",), None, False),
        (("127.0.0.0/8",), "unix", False),
    ],
)
def test_proxies_are_trusted_by_network(
    names: tuple[str, ...], address: str | None, is_in: bool
) -> None:
    assert (address in TrustedProxies(names)) is is_in


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trusted_proxies='proxy\.example'"):
        RouterSettings(trusted_proxies=("proxy.example",))
