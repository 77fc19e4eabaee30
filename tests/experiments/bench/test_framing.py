"""HTTP responses, however they are cut."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.bench.framing import FramingError, ResponseFraming

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(*parts, trailer=b""):
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n" + trailer + b"\r\n"


def fed(response, cuts):
    framing = ResponseFraming()
    bounds = sorted({0, *(c % len(response) for c in cuts), len(response)})
    content = b""
    for a, b in pairwise(bounds):
        assert not framing.is_over
        content += framing.feed(response[a:b])
    return framing, content


CUTS = st.lists(st.integers(0, 10_000), max_size=12)
PARTS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@settings(max_examples=200, deadline=None)
@given(PARTS, CUTS, st.sampled_from([b"", b"X-Trailer: 1\r\n"]))
def test_chunks_come_out_as_they_went_in(parts, cuts, trailer):
    framing, content = fed(HEAD + chunked(*parts, trailer=trailer), cuts)
    assert content == b"".join(parts)
    assert framing.is_over
    assert framing.keeps_alive
    assert framing.status == 200


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60), CUTS)
def test_a_body_of_known_length(body, cuts):
    response = b"HTTP/1.1 503 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    framing, content = fed(response, cuts)
    assert content == body
    assert framing.is_over
    assert framing.status == 503


def test_a_body_that_ends_with_the_connection():
    framing = ResponseFraming()
    assert framing.feed(b"HTTP/1.0 200 OK\r\n\r\nabc") == b"abc"
    assert framing.ends_with_connection
    assert not framing.is_over
    assert not framing.keeps_alive


def test_a_connection_that_is_to_be_closed_is_not_used_again():
    framing = ResponseFraming()
    framing.feed(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    assert framing.is_over
    assert not framing.keeps_alive


def test_an_informational_response_comes_before_the_real_one():
    framing = ResponseFraming()
    content = framing.feed(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    )
    assert (framing.status, content) == (200, b"x")


@pytest.mark.parametrize(
    "wrong",
    [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", HEAD + b"zz\r\nx\r\n", b"HTTP/1.1\r\n\r\n"],
)
def test_what_is_no_response_is_told(wrong):
    with pytest.raises(FramingError):
        ResponseFraming().feed(wrong)
