"""How a server ends, and what it does when its engine dies."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engine.server.listening import bind
from tests.engine.server.serving import PATIENCE_S, RunningServer, events_of, serving
from workbench.errors import ConfigError

LONG = {"prompt": "again and again", "max_tokens": 400, "ignore_eos": True}
SLOW = {"step_s": 0.002}


def read_all(connection: Any) -> bytes:
    """The body of a chunked answer, to the end of its connection or of the answer."""
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        more = connection.recv(65536)
        if not more:
            break
        data += more
    return data


def chunks_of(data: bytes) -> list[Any]:
    """The events in a raw chunked answer."""
    _, _, rest = data.partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    return events_of(body)


def open_stream(server: RunningServer, **fields: Any) -> Any:
    connection = server.open("/v1/completions", LONG | {"stream": True} | fields)
    server.wait_for(lambda: server.state.num_running > 0)
    return connection


def test_drains_and_refuses_new_work() -> None:
    with serving(**SLOW) as server:
        connection = open_stream(server)
        server.request_stop()
        server.wait_for(lambda: server.state.is_draining)
        assert server.get("/health")[0] == 200
        assert server.get("/ready")[0] == 503
        assert server.get("/load")[1]["is_draining"] is True
        status, headers, body = server.request("POST", "/v1/completions", {"prompt": "a"})
        assert status == 503
        assert headers["retry-after"] == "1"
        assert headers["connection"] == "close"
        assert json.loads(body)["error"]["type"] == "ServiceUnavailableError"
        events = chunks_of(read_all(connection))
        connection.close()
        server.join()
    assert events[-1] == "[DONE]"
    assert events[-2]["choices"][0]["finish_reason"] == "length"


def test_aborts_what_is_left_when_the_time_is_over() -> None:
    with serving({"drain_timeout": 0.05}, step_s=0.01) as server:
        connection = open_stream(server, max_tokens=1500)
        server.request_stop()
        events = chunks_of(read_all(connection))
        connection.close()
        server.join()
    assert events[-1] == "[DONE]"
    assert events[-2]["choices"][0]["finish_reason"] == "abort"


def test_a_second_wish_aborts_at_once() -> None:
    with serving({"drain_timeout": 600.0}, step_s=0.01) as server:
        connection = open_stream(server, max_tokens=1500)
        server.request_stop()
        server.wait_for(lambda: server.state.is_draining)
        server.request_stop()
        events = chunks_of(read_all(connection))
        connection.close()
        server.join()
    assert events[-2]["choices"][0]["finish_reason"] == "abort"


def test_a_broken_step_ends_streams_with_an_error() -> None:
    with serving(script="fail_third") as server:
        status, _, data = server.request(
            "POST", "/v1/completions", {"prompt": "a", "max_tokens": 9, "stream": True}
        )
        assert status in (200, 503)
        if status == 200:
            events = events_of(data)
            assert events[-1] == "[DONE]"
            assert events[-2]["error"]["code"] == 503
        server.wait_for(lambda: not server.llm.is_alive)
        for path in ("/health", "/ready"):
            status, body = server.get(path)
            assert status == 503
            assert "the device fell off the bus" in body["error"]["message"]
        status, headers, _ = server.request("POST", "/v1/completions", {"prompt": "a"})
        assert status == 503
        assert "retry-after" in headers


def test_a_failed_answer_is_an_error_of_the_server() -> None:
    with serving(script="nan_third") as server:
        status, body = server.post("/v1/completions", {"prompt": "a", "max_tokens": 9})
        assert status == 500
        assert "not a number" in body["error"]["message"]
        events = server.stream("/v1/completions", {"prompt": "a", "max_tokens": 9})
        assert events[-1] == "[DONE]"
        assert events[-2]["error"]["code"] == 500
        assert server.get("/health")[0] == 200


def test_a_killed_core_is_told_and_started_again() -> None:
    with serving({"max_core_restarts": 1}, in_thread=False, **SLOW) as server:
        connection = open_stream(server, max_tokens=1500)
        assert b"data:" in connection.recv(65536)
        server._loop.call_soon_threadsafe(server.llm.kill_core)
        rest = read_all(connection)
        connection.close()
        assert b'"code":503' in rest
        assert b"[DONE]" in rest
        server.wait_for(lambda: server.llm.is_alive)
        status, body = server.post("/v1/completions", {"prompt": "«back»"})
        assert (status, body["choices"][0]["text"]) == (200, "back")


def test_a_stopped_core_is_told_until_it_goes_on() -> None:
    with serving({"max_core_silence": 1.0}, in_thread=False) as server:
        pid = server.llm.info.pid
        os.kill(pid, signal.SIGSTOP)
        server.wait_for(lambda: server.llm.signs.silence_s > 1.0)
        for path in ("/health", "/ping", "/ready"):
            status, headers, body = server.request("GET", path)
            assert (status, headers["retry-after"]) == (503, "1")
            assert f"process {pid} has given no sign of life for".encode() in body
        waiting = server.open("/v1/completions", {"prompt": "«late»", "stream": True})
        os.kill(pid, signal.SIGCONT)
        # what was asked meanwhile is answered
        assert b'"finish_reason":"stop"' in read_all(waiting)
        server.wait_for(lambda: server.llm.signs.silence_s < 0.5)
        assert server.get("/health")[0] == 200


def test_a_core_that_hangs_in_a_step_is_told_and_replaced() -> None:
    limits = {"max_step_time": 0.3, "max_core_silence": 0.5, "restart_silence": 1.2}
    # the process lives and beats; its loop is in a step of an hour
    with serving(limits | {"max_core_restarts": 1}, in_thread=False, step_s=3600.0) as server:
        pid = server.llm.info.pid
        assert server.get("/health")[0] == 200
        waiting = server.open("/v1/completions", LONG)
        server.wait_for(lambda: server.llm.signs.stall_s > 0.5)
        assert server.llm.signs.silence_s < 0.5
        status, _, body = server.request("GET", "/health")
        assert status == 503
        assert b"has not got on for" in body
        answer = http.client.HTTPResponse(waiting)
        answer.begin()
        assert answer.status == 503
        assert b"killed by signal 9" in answer.read()
        waiting.close()
        server.wait_for(lambda: server.llm.is_alive)
        assert server.llm.info.pid != pid
        assert server.get("/health")[0] == 200


def test_a_full_queue_refuses() -> None:
    with serving({"max_queue": 1}, max_num_seqs=1, **SLOW) as server:
        first = open_stream(server, max_tokens=1500)
        second = server.open("/v1/completions", LONG)
        server.wait_for(lambda: server.state.num_waiting == 1)
        status, headers, body = server.request("POST", "/v1/completions", {"prompt": "a"})
        assert status == 503
        assert headers["retry-after"] == "1"
        assert b"max_queue=1" in body
        second.close()
        server.wait_for(lambda: server.state.num_queued == 0)
        first.close()


def test_a_burst_is_let_in_no_further_than_the_queue() -> None:
    with serving({"max_queue": 3}, max_num_seqs=1, **SLOW) as server:
        burst = [server.open("/v1/completions", LONG) for _ in range(20)]
        server.wait_for(lambda: server.state.num_rejected == 16)
        assert server.on_loop(_load(server)) == 4
        for connection in burst:
            connection.close()
        server.wait_for(lambda: server.state.server_load == 0)
        assert server.state.has_room(0)


async def _load(server: RunningServer) -> int:
    return server.state.server_load


def test_an_address_in_use_is_told() -> None:
    taken = bind("127.0.0.1", 0)
    try:
        taken.listen()
        with pytest.raises(ConfigError, match="cannot be listened on"):
            bind("127.0.0.1", taken.getsockname()[1])
    finally:
        taken.close()
    with pytest.raises(ConfigError, match="cannot be listened on"):
        bind("no.such.host.invalid", 0)


PROGRAM = """
import asyncio, sys
from engine.async_llm import AsyncLLM
from engine.server.app import build_app
from engine.server.run import run_loop, run_server
from engine.server.settings import ServerSettings
from tests.engine.served import served_llm

async def main():
    settings = ServerSettings(port=0)
    async with served_llm(step_s=0.005) as llm:
        app = build_app(llm, settings)
        await run_server(app, llm, settings, on_listening=lambda url: print(url, flush=True))

run_loop(main())
"""


@contextmanager
def program() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server as a process of its own, and its URL."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("num_signals", [1, 2])
def test_signals(num_signals: int) -> None:
    with program() as (process, url):
        client = RunningServer({}, {}, (), True)
        client.url = url
        connection = client.open("/v1/completions", LONG | {"stream": True, "max_tokens": 100})
        first = connection.recv(65536)
        process.send_signal(signal.SIGTERM)
        if num_signals == 2:
            # the first has been taken once new work is refused
            while client.get("/ready")[0] == 200:
                pass
            process.send_signal(signal.SIGINT)
        data = first + read_all(connection)
        connection.close()
        assert process.wait(PATIENCE_S) == 0
    reason = chunks_of(data)[-2]["choices"][0]["finish_reason"]
    assert reason == "length" if num_signals == 1 else reason in ("length", "abort")


def test_a_form_that_cannot_be_kept_is_the_request_s_fault(server: RunningServer) -> None:
    # the scripted model obeys no grammar
    body = {"prompt": "«blue»", "guided_choice": ["red"]}
    status, answer = server.post("/v1/completions", body)
    assert status == 400
    assert "grammar" in answer["error"]["message"]
