"""A client that leaves takes its request with it, wherever that stands; its blocks come back."""

import json
import random
from contextlib import suppress
from typing import Any

import pytest

from tests.engine.server.serving import RunningServer, serving

LONG = {"prompt": "again and again", "max_tokens": 1500, "ignore_eos": True}


def used_blocks(server: RunningServer) -> int:
    used, _ = server.on_loop(server.llm.call("block_usage"))
    return int(used)


def wait_until_clean(server: RunningServer) -> None:
    server.wait_for(lambda: server.llm.num_unfinished_requests == 0)
    server.wait_for(lambda: server.state.server_load == 0)

    async def empty() -> None:
        while (await server.llm.call("block_usage"))[0]:
            pass

    server.on_loop(empty())


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_while_it_answers(is_stream: bool, path: str) -> None:
    body: dict[str, Any] = LONG | {"stream": is_stream}
    body["messages"] = [{"role": "user", "content": "again"}]
    with serving(step_s=0.001) as server:
        connection = server.open(path, body)
        server.wait_for(lambda: server.llm.stats is not None and server.state.num_running > 0)
        if is_stream:
            assert b"data:" in connection.recv(65536)
        assert used_blocks(server) > 0
        connection.close()
        wait_until_clean(server)


def test_while_it_waits_in_the_queue() -> None:
    with serving(step_s=0.001, max_num_seqs=1) as server:
        first = server.open("/v1/completions", LONG)
        server.wait_for(lambda: server.state.num_running == 1)
        second = server.open("/v1/completions", LONG | {"stream": True})
        server.wait_for(lambda: server.state.num_waiting == 1)
        second.close()
        server.wait_for(lambda: server.llm.num_unfinished_requests == 1)
        first.close()
        wait_until_clean(server)


def test_while_its_prompt_is_computed() -> None:
    with serving(step_s=0.005, max_num_batched_tokens=16) as server:
        connection = server.open("/v1/completions", {"prompt": "a" * 2000})
        server.wait_for(lambda: server.state.num_running == 1)
        connection.close()
        wait_until_clean(server)


def test_one_of_several_prompts_and_answers() -> None:
    with serving(step_s=0.001) as server:
        body = LONG | {"prompt": ["one", "two", "three"], "n": 2, "stream": True}
        connection = server.open("/v1/completions", body)
        server.wait_for(lambda: server.state.num_running == 6)
        connection.close()
        wait_until_clean(server)


def test_before_the_body_has_come(server: RunningServer) -> None:
    connection = server.open("/v1/completions", LONG)
    connection.close()
    half = server.open("/v1/completions", {})
    half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
    half.close()
    wait_until_clean(server)


def test_many_at_random_moments() -> None:
    moments = random.Random(0)
    with serving(step_s=0.0005, max_num_seqs=8, max_num_batched_tokens=64) as server:
        for number in range(60):
            body = LONG | {"prompt": f"{number} " * moments.randint(1, 60), "n": 1 + number % 2}
            connection = server.open("/v1/completions", body | {"stream": number % 3 > 0})
            if moments.random() < 0.5:
                connection.settimeout(0.02 * moments.random())
                with suppress(TimeoutError):
                    connection.recv(100)
            connection.close()
        wait_until_clean(server)
        assert server.on_loop(server.llm.call("check_integrity")) is not False
        status, answer = server.post("/v1/completions", {"prompt": "«still here»"})
        assert (status, answer["choices"][0]["text"]) == (200, "still here")


def test_a_slow_reader_gets_all_of_it_in_order() -> None:
    text = "".join(f" {number}" for number in range(150))
    with serving() as server:
        connection = server.open(
            "/v1/completions",
            {"prompt": f"«{text}»", "max_tokens": 1000, "stream": True},
        )
        data = b""
        while b"[DONE]" not in data:
            data += connection.recv(97)
        connection.close()
    pieces = [line for line in data.split(b"\n") if line.startswith(b"data: {")]
    # chunked encoding may cut a line only where a chunk ends, and events are whole in chunks
    told = "".join(json.loads(piece[6:])["choices"][0]["text"] for piece in pieces)
    assert told == text
