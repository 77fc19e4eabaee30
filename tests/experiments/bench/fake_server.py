"""A small server with OpenAI's API in a thread of its own, whose answers are scripted."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Script:
    """How the server answers.

    `statuses`: status of the n-th completion, 200 after the last. `pieces`: events an answer is
    sent in (None: one a token). `hangs`: answers begin and never go on. `cut`: the connection is
    closed after so many events. `usage`, `ids`: what a stream tells of its tokens.
    """

    statuses: list[int] = field(default_factory=list)
    pieces: int | None = None
    hangs: bool = False
    cut: int | None = None
    usage: bool = True
    ids: bool = False
    line_end: bytes = b"\n"
    after: Callable[[dict[str, Any]], bytes | None] = lambda body: None


class FakeServer:
    """A server while the `with` block runs."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.num_connections = 0
        self.num_gone = 0

    def __enter__(self) -> "FakeServer":
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(started)))
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    async def _run(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await self._over.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.num_connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            self.num_gone += 1
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        if head.startswith("GET /v1/models"):
            self._send(writer, 200, {"data": [{"id": "fake", "max_model_len": 512}]})
            return True
        lengths = [line for line in head.split("\r\n") if line.lower().startswith("content-length")]
        body = json.loads(await reader.readexactly(int(lengths[0].partition(":")[2])))
        self.bodies.append(body)
        status = self.script.statuses.pop(0) if self.script.statuses else 200
        if status != 200:
            self._send(writer, status, {"error": {"message": f"said {status}"}})
            return True
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        events = answer_events(body, self.script)
        for number, event in enumerate(events):
            if self.script.cut == number:
                return False
            self._chunk(writer, event)
            if self.script.hangs:
                await reader.readexactly(1)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")
        return True

    def _chunk(self, writer: asyncio.StreamWriter, event: bytes) -> None:
        content = b"data: " + event + 2 * self.script.line_end
        writer.write(b"%x\r\n%s\r\n" % (len(content), content))

    def _send(self, writer: asyncio.StreamWriter, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        writer.write(
            b"HTTP/1.1 %d Told\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
        )


def answer_events(body: dict[str, Any], script: Script) -> list[bytes]:
    """The events of an answer, [DONE] included."""
    is_chat = "messages" in body
    tokens = body.get("max_tokens", body.get("max_completion_tokens"))
    pieces = min(script.pieces or tokens, tokens)
    events: list[dict[str, Any]] = []
    if is_chat:
        events.append(chunk({"delta": {"role": "assistant", "content": ""}}))
    for n in range(pieces):
        held = tokens // pieces + (n < tokens % pieces)
        choice: dict[str, Any] = {"text": " word" * held}
        if is_chat:
            choice = {"delta": {"content": " word" * held}}
        if script.ids:
            choice["token_ids"] = [5] * held
        choice["finish_reason"] = "length" if n == pieces - 1 else None
        events.append(chunk(choice))
    if script.usage:
        prompt = body.get("prompt", [])
        usage = {
            "prompt_tokens": len(prompt) if isinstance(prompt, list) else 7,
            "completion_tokens": tokens,
            "prompt_tokens_details": {"cached_tokens": 2},
        }
        events.append({"choices": [], "usage": usage})
    return [*(json.dumps(event).encode() for event in events), b"[DONE]"]


def chunk(choice: dict[str, Any]) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, **choice}], "usage": None}
