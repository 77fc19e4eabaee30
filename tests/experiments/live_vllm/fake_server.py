"""A small HTTP server that answers like vLLM and decides with the workbench's scheduler.

It writes the record that the recorder inside a real one would write.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from simulator.request_factory import RequestFactory
from workbench.config import CacheConfig, SchedulerConfig
from workbench.outputs import ModelRunnerOutput
from workbench.request import Request
from workbench.scheduler.scheduler import Scheduler
from workbench.workload.base import WorkloadRequest

SETTINGS: dict[str, Any] = {
    "max_num_seqs": 4,
    "max_num_batched_tokens": 64,
    "max_model_len": 512,
    "enable_chunked_prefill": True,
    "long_prefill_token_threshold": 0,
    "policy": "fcfs",
    "async_scheduling": False,
    "block_size": 16,
    "num_gpu_blocks": 257,
    "enable_prefix_caching": True,
}


@dataclass
class FakeEngine:
    """The engine behind the server: a thread that steps.

    `mend` may change a line of the record before it is written; `refuse` is a status that ends all
    requests.
    """

    record: Path
    seconds: Callable[[int], float] = lambda tokens: 1e-4
    mend: Callable[[list[Any]], list[Any]] = lambda line: line
    refuse: int | None = None
    settings: dict[str, Any] = field(default_factory=lambda: dict(SETTINGS))

    def __post_init__(self) -> None:
        told = self.settings
        skipped = ("block_size", "num_gpu_blocks", "enable_prefix_caching")
        limits = {name: value for name, value in told.items() if name not in skipped}
        cache = CacheConfig(block_size=told["block_size"])
        self._scheduler = Scheduler(SchedulerConfig(**limits), cache, told["num_gpu_blocks"] - 1)
        self._num_blocks = told["num_gpu_blocks"] - 1
        self._factory = RequestFactory(cache)
        self._inbox: SimpleQueue[tuple[WorkloadRequest, SimpleQueue[int]] | None] = SimpleQueue()
        self._outboxes: dict[str, SimpleQueue[int]] = {}
        self._file = self.record.open("w", buffering=1)
        self._note("settings", told)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _note(self, *line: Any) -> None:
        self._file.write(json.dumps(self.mend(list(line))) + "\n")

    def submit(self, name: str, prompt: list[int], outputs: int) -> "SimpleQueue[int]":
        box: SimpleQueue[int] = SimpleQueue()
        item = WorkloadRequest(name, 0.0, len(prompt), outputs, prompt_token_ids=tuple(prompt))
        self._inbox.put((item, box))
        return box

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join()
        self._file.close()

    def _run(self) -> None:
        while self._take(wait=not self._scheduler.num_unfinished_requests):
            if self._scheduler.has_requests:
                self._step()

    def _take(self, wait: bool) -> bool:
        while wait or not self._inbox.empty():
            wait = False
            if (found := self._inbox.get()) is None:
                return False
            item, box = found
            request = self._factory.request(item, len(self._outboxes))
            self._outboxes[item.request_id] = box
            self._scheduler.add_request(request, time.monotonic())
            lengths = item.num_prompt_tokens, item.num_output_tokens
            self._note("add", time.monotonic(), vllm_name(item.request_id), *lengths)
        return True

    def _step(self) -> None:
        scheduler, requests = self._scheduler, self._scheduler._state.requests
        start = time.monotonic()
        known: dict[str, Request] = dict(requests)
        output = scheduler.schedule(start)
        if not output.total_num_scheduled_tokens:
            return
        rows = [
            (vllm_name(n), known[n].num_computed_tokens - t, t, known[n].num_output_tokens)
            for n, t in output.num_scheduled_tokens.items()
        ]
        before = {n: known[n].num_output_tokens for n in output.num_scheduled_tokens}
        free = self._num_blocks - output.num_used_blocks
        self._note("schedule", start, time.monotonic(), rows, [], output.num_waiting, free)
        threading.Event().wait(self.seconds(output.total_num_scheduled_tokens))
        start = time.monotonic()
        scheduler.update_from_output(output, ModelRunnerOutput(), start)
        self._note("update", start, time.monotonic(), scheduler.num_unfinished_requests)
        for name, count in before.items():
            for _ in range(known[name].num_output_tokens - count):
                self._outboxes[name].put(1)


def vllm_name(name: str) -> str:
    return f"cmpl-{name}-0-0123abcd"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: FakeEngine

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        content = {"data": [{"id": "fake"}]} if self.path == "/v1/models" else {}
        self._send(200, json.dumps(content).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.engine.refuse is not None:
            self._send(self.engine.refuse, b'{"error": "out of order"}')
            return
        name = self.headers["X-Request-Id"]
        box = self.engine.submit(name, body["prompt"], body["max_tokens"])
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(body["max_tokens"]):
            event = {"choices": [{"text": "x", "token_ids": [box.get()]}]}
            self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class FakeServer:
    """A server while the `with` block runs; on a free port where none is given."""

    def __init__(self, engine: FakeEngine, port: int = 0) -> None:
        handler = type("Handler", (_Handler,), {"engine": engine})
        self.engine = engine
        self._http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "FakeServer":
        poll = {"poll_interval": 0.01}
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs=poll)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self.engine.close()


def main() -> None:
    """Stands for `vllm serve`: as much of its command line as is needed."""
    arguments = sys.argv[1:]
    port = int(arguments[arguments.index("--port") + 1])
    told = dict(SETTINGS)
    for flag, name in (("--max-num-seqs", "max_num_seqs"), ("--max-model-len", "max_model_len")):
        told[name] = int(arguments[arguments.index(flag) + 1])
    engine = FakeEngine(Path(os.environ["VLLM_STEP_RECORD"]), settings=told)
    with FakeServer(engine, port):
        signal.sigwait([signal.SIGTERM])


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    main()
