"""Which headers pass through a proxy (RFC 9110, 7.6.1), and which it adds."""

from collections.abc import Callable, Mapping

from multidict import CIMultiDict, CIMultiDictProxy

HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "te", "trailer", "trailers", "transfer-encoding", "upgrade",
})  # fmt: skip
# made anew for the connection to the backend; the body arrives here decoded
NOT_FOR_BACKENDS = HOP_BY_HOP | {"host", "content-length", "content-encoding", "expect"}
NOT_FOR_CLIENTS = HOP_BY_HOP | {"content-length", "date", "server", "x-request-id"}
# what proxies say of a client, which a client could say of itself
TOLD_BY_PROXIES = frozenset({"forwarded", "x-real-ip"})
TOLD_BY_PROXIES_PREFIX = "x-forwarded-"
MAX_RETRY_AFTER_S = 86400.0
DEFAULT_RETRY_AFTER_S = 1.0
REQUEST_ID = "X-Request-Id"
BACKEND = "X-Workbench-Backend"
MAX_REQUEST_ID_CHARACTERS = 128

Headers = CIMultiDict[str] | CIMultiDictProxy[str]


def for_backend(
    headers: Headers,
    *,
    request_id: str,
    client_address: str | None,
    scheme: str,
    is_trusted: bool,
    authorization: str | None,
    keeps_authorization: bool,
) -> CIMultiDict[str]:
    """The headers of a request as they are sent on.

    Args:
        client_address: Of who is connected.
        is_trusted: That is a proxy, whose word for its own client is passed on.
        authorization: In place of the client's; None: see `keeps_authorization`.
        keeps_authorization: The client's key is for the backend, not for the router.
    """
    out = _passed(headers, NOT_FOR_BACKENDS)
    if authorization is not None or not keeps_authorization:
        out.popall("Authorization", None)
    if authorization is not None:
        out["Authorization"] = authorization
    out[REQUEST_ID] = request_id
    if not is_trusted:
        for name in {name.lower() for name in out}:
            if name in TOLD_BY_PROXIES or name.startswith(TOLD_BY_PROXIES_PREFIX):
                out.popall(name)
    _add_client(out, client_address, scheme, headers.get("Host", ""))
    return out


def _add_client(out: CIMultiDict[str], address: str | None, scheme: str, host: str) -> None:
    """Who is connected, behind what a proxy said; one line each, as the lists are joined."""
    if address:
        out["X-Forwarded-For"] = ", ".join([*out.getall("X-Forwarded-For", []), address])
    out["X-Forwarded-Proto"] = out.get("X-Forwarded-Proto", scheme)
    if host:
        out["X-Forwarded-Host"] = out.get("X-Forwarded-Host", host)
    if told := out.getall("Forwarded", []):
        node = f"[{address}]" if address and ":" in address else address or "unknown"
        out["Forwarded"] = ", ".join([*told, f'for="{node}";proto={scheme}'])


def for_client(headers: Headers, backend: str) -> CIMultiDict[str]:
    """The headers of an answer as they are passed on."""
    out = _passed(headers, NOT_FOR_CLIENTS)
    out[BACKEND] = backend
    return out


def _passed(headers: Headers, left_out: frozenset[str]) -> CIMultiDict[str]:
    named = {
        name.strip().lower()
        for value in headers.getall("Connection", [])
        for name in value.split(",")
    }
    out: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        if name.lower() not in left_out and name.lower() not in named:
            out.add(name, value)
    return out


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a backend asks to be left alone; 1 if it does not say, or says a date."""
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return DEFAULT_RETRY_AFTER_S
    return min(seconds, MAX_RETRY_AFTER_S) if seconds >= 0 else DEFAULT_RETRY_AFTER_S


def request_id(headers: Mapping[str, str], make: Callable[[], str]) -> str:
    """The client's id of the request, or a new one where it has none that may be passed on."""
    given = headers.get(REQUEST_ID, "")
    fits = 0 < len(given) <= MAX_REQUEST_ID_CHARACTERS
    return given if fits and given.isascii() and given.isprintable() else make()
