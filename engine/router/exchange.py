"""One request to one backend, and its answer piece by piece to the client.

Until the first byte of the body has come, nothing is sent to the client, so that the request can
be tried elsewhere. Reading waits for writing: a slow client slows its backend down, and nothing
piles up here.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import msgspec
from aiohttp import web
from multidict import CIMultiDict

from engine.router.backend import Backend
from engine.router.errors import RouterError
from engine.router.event_framer import EventFramer
from engine.router.headers import (
    BACKEND,
    DEFAULT_RETRY_AFTER_S,
    REQUEST_ID,
    for_client,
    retry_after,
)
from engine.server.open_files import is_shortage

WHOLE_BYTES = 1 << 20
TAIL_BYTES = 4096
LAST_WORDS_S = 1.0
ERROR_EVENT = b'data: {"error"'
ELSEWHERE = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """What is sent to a backend, the same to each one that is tried."""

    request_id: str
    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes


class LostError(Exception):
    """The connection to a backend broke while its answer was read."""


class NotBegunError(Exception):
    """Nothing of an answer was sent to the client.

    Attributes:
        reason: "refused", "lost", "abandoned", "status", or "shortage": the router itself could
            not open a connection.
        status, retry_after_s, answer: What the backend said, if it said anything.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        status: int | None = None,
        retry_after_s: float = 0.0,
        answer: web.Response | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.retry_after_s = retry_after_s
        self.answer = answer


class BrokenOffError(Exception):
    """The backend broke off while it answered; the client was told. `response` is what it got."""

    def __init__(self, message: str, response: web.StreamResponse, by_backend: bool) -> None:
        super().__init__(message)
        self.response = response
        self.by_backend = by_backend


class Exchange:
    """To be run once.

    Attributes:
        request_id: Of the request.
        tail: The last bytes of the answer, where the usage stands.
        on_begin: Called when the first bytes of the body have come.
    """

    def __init__(
        self,
        client: web.Request,
        outgoing: OutgoingRequest,
        backend: Backend,
        session: aiohttp.ClientSession,
    ) -> None:
        self.request_id = outgoing.request_id
        self._client = client
        self._outgoing = outgoing
        self._backend = backend
        self._session = session
        self._limit = asyncio.timeout(None)
        self._why = ""
        self._response: web.StreamResponse | None = None
        self._framer: EventFramer | None = None
        self.on_begin: Callable[[], None] = lambda: None
        self.tail = b""

    def abandon(self, reason: str) -> None:
        """End it now, with an error where the answer has begun."""
        if self._why:  # it ends already, and its limit cannot be set again
            return
        self._why = reason
        self._limit.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> web.StreamResponse:
        """The answer, sent to its end.

        Raises:
            NotBegunError: The request may be tried elsewhere.
            BrokenOffError: It may not.
            ConnectionResetError: The client went away.
        """
        try:
            async with self._limit:
                self._backend.waiting.add(self)
                try:
                    return await self._run()
                finally:
                    self._backend.waiting.discard(self)
        except TimeoutError:
            if self._response is None:
                raise NotBegunError("abandoned", self._why) from None
            raise await self._broken_off(self._why, by_backend=False) from None

    async def _run(self) -> web.StreamResponse:
        outgoing = self._outgoing
        try:
            answer = await self._session.request(
                outgoing.method,
                self._backend.url + outgoing.path,
                data=outgoing.body or None,
                headers=outgoing.headers,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if is_shortage(error):
                raise NotBegunError("shortage", f"no connection: {error}") from error
            raise NotBegunError("refused", f"no connection: {error}") from error
        except aiohttp.ClientError as error:
            raise NotBegunError("lost", _words(error)) from error
        try:
            return await self._pass_on(answer)
        except LostError as error:
            if self._response is None:
                raise NotBegunError("lost", str(error)) from error
            raise await self._broken_off(str(error), by_backend=True) from error
        finally:
            if answer.content.at_eof():
                answer.release()
            else:
                answer.close()  # which is how the backend learns that nobody listens any more

    async def _pass_on(self, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        if answer.status < 200:  # it has left HTTP, and nobody asked it to
            raise LostError(f"it answered {answer.status}")
        headers = for_client(answer.headers, self._backend.name)
        headers[REQUEST_ID] = self._outgoing.request_id
        is_stream = answer.content_type == "text/event-stream"
        length = answer.content_length
        if answer.status in ELSEWHERE or (
            not is_stream and length is not None and length <= WHOLE_BYTES
        ):
            return await self._pass_on_whole(answer, headers)
        if is_stream and "Content-Encoding" not in answer.headers:
            self._framer = EventFramer()
        piece = await self._read(answer)
        if self._framer is not None:
            _raise_for_error_event(piece, headers)
        self.on_begin()
        self._backend.waiting.discard(self)
        self._response = response = web.StreamResponse(status=answer.status, headers=headers)
        if length is not None and not is_stream:
            response.content_length = length
        await response.prepare(self._client)
        while piece:
            await response.write(piece)
            self.tail = (self.tail + piece)[-TAIL_BYTES:]
            piece = await self._read(answer)
        await response.write_eof()
        return response

    async def _pass_on_whole(
        self, answer: aiohttp.ClientResponse, headers: CIMultiDict[str]
    ) -> web.StreamResponse:
        """A short answer, or one that may be replaced by another backend's, in one piece."""
        body = b""
        while (piece := await _read_piece(answer)) and len(body) <= WHOLE_BYTES:
            body += piece
        self.tail = body[-TAIL_BYTES:]
        whole = web.Response(status=answer.status, headers=headers, body=body)
        if answer.status in ELSEWHERE:
            said = f"it answered {answer.status}"
            pause = retry_after(answer.headers)
            raise NotBegunError("status", said, answer.status, pause, whole)
        self.on_begin()
        return whole

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        """The next bytes to send on; none at the end."""
        framer = self._framer
        if framer is None:
            return await _read_piece(answer)
        while piece := await _read_piece(answer):
            if out := framer.push(piece):
                return out
        return framer.rest()

    async def _broken_off(self, why: str, *, by_backend: bool) -> BrokenOffError:
        response = self._response
        assert response is not None
        transport = self._client.transport
        try:
            if self._framer is None:
                raise ConnectionResetError  # the client must see that the body is not whole
            error = RouterError(502 if by_backend else 503, f"the answer was broken off: {why}")
            async with asyncio.timeout(LAST_WORDS_S):
                await response.write(error.event)
                await response.write_eof()
        except (OSError, TimeoutError):
            if transport is not None:
                transport.abort()
        return BrokenOffError(why, response, by_backend)


def _raise_for_error_event(piece: bytes, headers: CIMultiDict[str]) -> None:
    """Some servers say 200 first, and then that they failed, before anything of an answer."""
    if not piece.startswith(ERROR_EVENT):
        return
    body = piece.partition(b"\n")[0].removeprefix(b"data: ").strip()
    try:
        code = msgspec.json.decode(body)["error"]["code"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return
    if isinstance(code, int) and code in ELSEWHERE:
        kept = {name: headers[name] for name in (REQUEST_ID, BACKEND) if name in headers}
        answer = web.Response(status=code, headers=kept, body=body, content_type="application/json")
        raise NotBegunError(
            "status", f"its first event is the error {code}", code, DEFAULT_RETRY_AFTER_S, answer
        )


async def _read_piece(answer: aiohttp.ClientResponse) -> bytes:
    try:
        return await answer.content.readany()
    except (aiohttp.ClientError, OSError) as error:
        raise LostError(_words(error)) from error


def _words(error: BaseException) -> str:
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "the backend closed the connection"
    if isinstance(error, TimeoutError):
        return "the backend was silent for too long"
    return " ".join(str(error).split()) or type(error).__name__
