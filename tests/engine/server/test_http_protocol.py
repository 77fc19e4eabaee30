"""What uvicorn leaves open: long heads, silent clients, other protocols, errors' form."""

import json
import socket
from typing import Any

import pytest

from engine.server.http_protocol import MAX_FRAMING, MAX_HEAD_BYTES
from tests.engine.server.serving import PATIENCE_S, RunningServer, events_of, serving

BODY = json.dumps({"prompt": "say «Hello»"}).encode()
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)


def talk(server: RunningServer, *pieces: bytes) -> bytes:
    """All that the server says until it closes the connection."""
    with socket.create_connection(server.address, timeout=PATIENCE_S) as connection:
        said = b""
        for piece in pieces:
            connection.sendall(piece)
        while more := connection.recv(65536):
            said += more
        return said


def told(said: bytes) -> tuple[int, Any]:
    """(status, JSON) of the last answer."""
    head, _, body = said.rpartition(b"\r\n\r\n")
    assert b"application/json" in head
    return int(head.rpartition(b"HTTP/1.1 ")[2][:3]), json.loads(body)


@pytest.mark.parametrize(
    "pieces",
    [
        (b"NONSENSE\r\n\r\n",),
        (b"GET /health HTTP/1.1\r\nHost x\r\n\r\n",),
        (HEAD, b"Content-Length: -1\r\n\r\n"),
        (HEAD, b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        (HEAD, b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"),
        (b"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\n\r\n",),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",),
    ],
)
def test_what_is_no_http_gets_an_error_in_openais_form(
    server: RunningServer, pieces: tuple[bytes, ...]
) -> None:
    status, body = told(talk(server, *pieces))
    assert status == 400
    assert body["error"]["type"] == "BadRequestError"
    assert set(body["error"]) == {"message", "type", "param", "code"}


def test_a_head_may_not_be_long(server: RunningServer) -> None:
    line = b"X-Long: " + b"a" * 1000 + b"\r\n"
    # no more than it reads: a connection that is closed before that is reset, and its answer lost
    lines = [line] * ((MAX_HEAD_BYTES - len(HEAD)) // len(line) + 1)
    status, body = told(talk(server, HEAD, *lines))
    assert status == 431
    assert str(MAX_HEAD_BYTES) in body["error"]["message"]
    few = lines[: len(lines) // 2]
    status, _ = told(talk(server, HEAD, b"Connection: close\r\n", *few, LENGTH + BODY))
    assert status == 200


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def test_what_follows_a_body_may_not_be_long(server: RunningServer) -> None:
    chunk = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
    before = len(HEAD + CHUNKED + chunk) - len(BODY)
    trailer = b"X-Long: ".ljust(MAX_HEAD_BYTES + MAX_FRAMING * len(BODY) - before + 1, b"a")
    status, _ = told(talk(server, HEAD + CHUNKED, chunk, trailer))
    assert status == 431


def test_small_chunks_are_read(server: RunningServer) -> None:
    body = json.dumps({"prompt": "say «Hello»", "user": "u" * 40_000}).encode()
    chunks = b"".join(b"00001\r\n%c\r\n" % byte for byte in body)
    assert len(chunks) - len(body) > 3 * MAX_HEAD_BYTES
    said = talk(server, HEAD + b"Connection: close\r\n" + CHUNKED, chunks + b"0\r\n\r\n")
    assert told(said)[0] == 200


def test_a_long_body_before_a_pipelined_request_is_none_of_its_head(server: RunningServer) -> None:
    long = json.dumps({"prompt": "a", "user": "u" * 300_000, "max_tokens": 1}).encode()
    first = HEAD + b"Content-Length: %d\r\n\r\n" % len(long) + long
    said = talk(server, first + HEAD, b"Connection: close\r\n" + LENGTH + BODY)
    assert said.count(b"HTTP/1.1 200") == 2


def test_a_header_behind_a_body_opens_nothing() -> None:
    head = HEAD + b"Connection: close\r\n" + CHUNKED
    body = b"%x\r\n%s\r\n0\r\nAuthorization: Bearer sk-a\r\n\r\n" % (len(BODY), BODY)
    with serving({"api_keys": ("sk-a",)}) as server:
        assert told(talk(server, head + body))[0] == 401
        before = head.replace(b"Host", b"Authorization: Bearer sk-a\r\nHost")
        assert told(talk(server, before + body))[0] == 200


def test_a_client_that_asks_first_need_not_send_too_much(server: RunningServer) -> None:
    asks = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    said = talk(server, asks % 10**12)
    assert b"100 Continue" not in said
    assert told(said)[0] == 413
    said = talk(server, (asks % len(BODY)).replace(b"Host", b"Connection: close\r\nHost"), BODY)
    assert said.startswith(b"HTTP/1.1 100 Continue")
    assert told(said)[0] == 200


@pytest.mark.parametrize("cut", [0, 1, len(BODY) // 2, len(BODY)])
def test_a_client_that_offers_http2_is_answered(server: RunningServer, cut: int) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    again = HEAD + b"Connection: close\r\n" + LENGTH + BODY
    said = talk(server, HEAD + offer + LENGTH + BODY[:cut], BODY[cut:] + again)
    assert said.count(b"HTTP/1.1 200") == 2
    status, body = told(said)
    assert (status, body["choices"][0]["text"]) == (200, "Hello")


def test_a_client_without_chunks_gets_a_stream_in_one_piece(server: RunningServer) -> None:
    body = json.dumps({"prompt": "say «Hello»", "stream": True}).encode()
    head = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Content-Length: %d\r\n\r\n" % len(body)
    told_head, _, events = talk(server, head + body).partition(b"\r\n\r\n")
    assert b"chunked" not in told_head
    assert b"content-length: %d\r\n" % len(events) in told_head
    texts = [event["choices"][0]["text"] for event in events_of(events)[:-1]]
    assert "".join(texts) == "Hello"


def test_an_answer_under_way_is_not_written_into(server: RunningServer) -> None:
    body = json.dumps({"prompt": "a b c", "max_tokens": 300, "ignore_eos": True, "stream": True})
    connection = server.open("/v1/completions", json.loads(body))
    with connection:
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        connection.sendall(b"NONSENSE\r\n\r\n")
        said = b""
        while more := connection.recv(65536):
            said += more
    assert b"HTTP/1.1 400" not in said


def test_a_request_that_does_not_come_on_is_given_up() -> None:
    with serving({"timeout_keep_alive": 1}) as server:
        connections = [
            socket.create_connection(server.address, timeout=PATIENCE_S) for _ in range(3)
        ]
        nothing, half_head, half_body = connections
        half_head.sendall(HEAD)
        half_body.sendall(HEAD + LENGTH + BODY[:5])
        assert nothing.recv(100) == b""
        assert told(read(half_head))[0] == 408
        status, body = told(read(half_body))
        assert status == 408
        assert body["error"]["type"] == "RequestTimeoutError"
        server.wait_for(lambda: not server.state.server_load)
        for connection in connections:
            connection.close()


def test_a_long_answer_is_no_silence() -> None:
    with serving({"timeout_keep_alive": 1}, step_s=0.05) as server:
        status, body = server.post(
            "/v1/completions", {"prompt": "a b c", "max_tokens": 40, "ignore_eos": True}
        )
    assert (status, body["usage"]["completion_tokens"]) == (200, 40)


def read(connection: socket.socket) -> bytes:
    said = b""
    while more := connection.recv(65536):
        said += more
    return said
