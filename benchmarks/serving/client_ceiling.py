"""How many streamed tokens a second the load client itself can take.

    python benchmarks/serving/client_ceiling.py [TOKENS [STREAMS]]

The server behind it does nothing but write answers that were made before, a chunk a token, in
turns over all streams: what `workbench bench serve` measures here is its own limit on a machine
that it shares with a server.
"""

import asyncio
import json
import multiprocessing
import os
import resource
import sys
from collections import deque

from load_client import bench, spread_ms
from server_process import free_port, report, wait_until

from experiments.bench.target import Target
from experiments.bench.timers import loop_factory
from experiments.provenance import Stopwatch

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MODELS = json.dumps({"data": [{"id": "nothing"}]}).encode()


def chunk(event: dict[str, object] | None) -> bytes:
    content = b"data: " + (b"[DONE]" if event is None else json.dumps(event).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(content), content)


def event(reason: str | None, **more: object) -> dict[str, object]:
    choice = {"index": 0, "text": " word", "logprobs": None, "finish_reason": reason}
    named = {"id": "cmpl-0123456789abcdef", "object": "text_completion", "created": 1700000000}
    return {**named, "model": "nothing", "choices": [choice], "usage": None, **more}


class Writer:
    """Writes a piece to every open stream in turn, for ever."""

    def __init__(self) -> None:
        self._streams: deque[tuple[asyncio.StreamWriter, int]] = deque()
        self._token, self._last = chunk(event(None)), chunk(event("length"))

    def add(self, writer: asyncio.StreamWriter, tokens: int) -> None:
        writer.write(HEAD)
        self._streams.append((writer, tokens))

    async def run(self) -> None:
        while True:
            for _ in range(len(self._streams)):
                writer, left = self._streams.popleft()
                writer.write(self._token if left > 1 else self._last + self._end)
                if left > 1:
                    self._streams.append((writer, left - 1))
            await asyncio.sleep(0)

    @property
    def _end(self) -> bytes:
        usage = {"prompt_tokens": 1, "completion_tokens": TOKENS}
        return chunk(event(None, choices=[], usage=usage)) + chunk(None) + b"0\r\n\r\n"


async def serve(port: int) -> None:
    pieces = Writer()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    length = b"Content-Length: %d\r\n\r\n" % len(MODELS)
                    writer.write(b"HTTP/1.1 200 OK\r\n" + length + MODELS)
                    continue
                size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(size)
                pieces.add(writer, TOKENS)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, limit=1 << 20)
    async with server:
        await pieces.run()


def server_main(port: int) -> None:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(port))


def listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


TOKENS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
STREAMS = int(sys.argv[2]) if len(sys.argv) > 2 else 256


def main() -> None:
    stopwatch = Stopwatch()
    port = free_port()
    server = multiprocessing.get_context("spawn").Process(target=server_main, args=(port,))
    server.start()
    wait_until(lambda: listens(port), 20)
    url = str(Target("http", "127.0.0.1", port))
    words = ("--num-prompts", STREAMS, "--random-input-len", 8, "--random-output-len", TOKENS)
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        result = bench(url, *words)
    finally:
        server.terminate()
        server.join()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    tokens = int(result.columns.output_tokens.sum())
    report(
        {
            "streams": STREAMS,
            "tokens": tokens,
            "failed": result.num_failed,
            "tokens_per_s": tokens / result.duration_s,
            "client_cpu_us_per_token": cpu_s / tokens * 1e6,
            "duration_s": result.duration_s,
            "itl_ms": spread_ms(result.columns.itl_s),
            "pid": os.getpid(),
        },
        stopwatch,
    )


if __name__ == "__main__":
    main()
