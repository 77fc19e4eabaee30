"""A client that streams completions from an OpenAI-compatible server and notes when tokens come.

Knows HTTP and server-sent events. It is light, because it may share the machine with the server:
while requests run it keeps raw bytes with their times, and reads them as JSON afterwards. Times are
those of CLOCK_MONOTONIC, seconds.
"""

import asyncio
import gc
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

EVENT = b"data: "
DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: prompt tokens, the exact length of the answer, and when to send it (seconds)."""

    request_id: str
    prompt_token_ids: Sequence[int]
    num_output_tokens: int
    send_at: float = 0.0


@dataclass(slots=True)
class Answer:
    """What the client saw of a request.

    Attributes:
        request_id: Of the ask.
        sent_at: When the client began to send it.
        token_times: When each output token came; tokens of one piece share its time.
        error: Why it was not answered in full; None where it was.
    """

    request_id: str
    sent_at: float
    token_times: list[float] = field(default_factory=list)
    error: str | None = None


@dataclass(slots=True)
class _Stream:
    """Raw pieces of an answer and when they came."""

    sent_at: float
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    error: str | None = None


class CompletionClient:
    """Talks to one server.

    Args:
        url: Where it is, e.g. http://127.0.0.1:8000.
        model: The name under which it serves its model.
        timeout_s: Longest silence of one request.
    """

    def __init__(self, url: str, model: str, timeout_s: float = 120.0) -> None:
        self._url = f"{url.rstrip('/')}/v1/completions"
        self._model = model
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=30.0, sock_read=timeout_s)

    def answers(
        self, asks: Sequence[Ask], on_end: Callable[[], None] | None = None
    ) -> list[Answer]:
        """Send each ask at its time after now, and wait for all answers; in the order of asks.

        Args:
            asks: Those of `send_at` 0 are sent at once.
            on_end: Called when a request has ended.
        """
        gc.collect()
        gc.disable()  # a collection would hold all time stamps back
        try:
            streams = asyncio.run(self._stream_all(asks, on_end))
        finally:
            gc.enable()
        return [_answer(ask, stream) for ask, stream in zip(asks, streams, strict=True)]

    async def _stream_all(
        self, asks: Sequence[Ask], on_end: Callable[[], None] | None
    ) -> list[_Stream]:
        connector = aiohttp.TCPConnector(limit=0)
        bodies = [self._body(ask) for ask in asks]
        async with aiohttp.ClientSession(connector=connector, timeout=self._timeout) as session:
            start = time.monotonic()

            async def one(ask: Ask, body: bytes) -> _Stream:
                await asyncio.sleep(start + ask.send_at - time.monotonic())
                stream = await self._stream(session, ask, body)
                if on_end is not None:
                    on_end()
                return stream

            tasks = [one(ask, body) for ask, body in zip(asks, bodies, strict=True)]
            return list(await asyncio.gather(*tasks))

    def _body(self, ask: Ask) -> bytes:
        wishes = {
            "model": self._model,
            "prompt": list(ask.prompt_token_ids),
            "max_tokens": ask.num_output_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
        }
        return json.dumps(wishes, separators=(",", ":")).encode()

    async def _stream(self, session: aiohttp.ClientSession, ask: Ask, body: bytes) -> _Stream:
        headers = {"Content-Type": "application/json", "X-Request-Id": ask.request_id}
        stream = _Stream(time.monotonic())
        try:
            async with session.post(self._url, data=body, headers=headers) as response:
                async for piece in response.content.iter_any():
                    stream.pieces.append((time.monotonic(), piece))
                if response.status != 200:
                    text = b"".join(piece for _, piece in stream.pieces).decode(errors="replace")
                    stream.error = f"status {response.status}: {text[:300]}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            stream.error = f"{type(error).__name__}: {error}".rstrip(": ")
        return stream


def _answer(ask: Ask, stream: _Stream) -> Answer:
    answer = Answer(ask.request_id, stream.sent_at, error=stream.error)
    if stream.error is not None:
        return answer
    try:
        for at, event in _events(stream.pieces):
            if "error" in event:
                answer.error = str(event["error"])[:300]
                return answer
            answer.token_times += [at] * sum(_num_tokens(c) for c in event.get("choices", ()))
    except (ValueError, AttributeError, TypeError) as error:
        answer.error = f"the stream holds no completion ({error})"
        return answer
    if len(answer.token_times) != ask.num_output_tokens:
        got, wanted = len(answer.token_times), ask.num_output_tokens
        answer.error = f"{got} tokens were streamed and {wanted} asked for"
    return answer


def _num_tokens(choice: dict[str, Any]) -> int:
    ids = choice.get("token_ids")
    if ids is None:  # an older server: a piece of text is a token
        return int(bool(choice.get("text")))
    return len(ids)


def _events(pieces: Sequence[tuple[float, bytes]]) -> list[tuple[float, dict[str, Any]]]:
    """The JSON of every event with the time of the piece that completed it."""
    events = []
    rest = b""
    for at, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.strip().removeprefix(EVENT)
            if line.startswith(EVENT) and data != DONE:
                events.append((at, json.loads(data)))
    return events
