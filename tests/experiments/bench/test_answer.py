"""Streams to tokens with times."""

import json

import pytest

from experiments.bench.answer import events, read_answer
from experiments.bench.http import Exchange


def exchange(*said, status=200, failure=None, done=True):
    made = Exchange("r", b"")
    made.sent_at, made.ended_at, made.status, made.failure = 0.5, 99.0, status, failure
    lines = [json.dumps(event) if isinstance(event, dict) else event for event in said]
    if done:
        lines.append("[DONE]")
    made.times = [float(n) for n in range(1, len(lines) + 1)]
    made.pieces = [f"data: {line}\n\n".encode() for line in lines]
    return made


def piece(text, reason=None, ids=None, usage=None):
    choice = {"index": 0, "text": text, "finish_reason": reason}
    if ids is not None:
        choice["token_ids"] = ids
    return {"choices": [choice], "usage": usage}


def delta(reason=None, **content):
    return {"choices": [{"index": 0, "delta": content, "finish_reason": reason}]}


def usage(tokens, prompt=9, cached=None):
    details = None if cached is None else {"cached_tokens": cached}
    told = {"completion_tokens": tokens, "prompt_tokens": prompt, "prompt_tokens_details": details}
    return {"choices": [], "usage": told}


def test_one_token_a_piece():
    answer = read_answer(exchange(piece("a"), piece("b"), piece("c", "length"), usage(3, cached=4)))
    assert answer.token_times.tolist() == [1.0, 2.0, 3.0]
    assert (answer.text, answer.finish_reason) == ("abc", "length")
    assert (answer.prompt_tokens, answer.cached_tokens) == (9, 4)
    assert answer.is_exact
    assert answer.failure is None


def test_ids_tell_how_many_tokens_a_piece_holds():
    answer = read_answer(exchange(piece("a", ids=[1]), piece("", ids=[2, 3]), piece("x", "stop")))
    assert answer.token_times.tolist() == [1.0, 2.0, 2.0]
    assert answer.token_ids == [1, 2, 3]
    assert answer.is_exact


def test_a_running_count_does_too():
    counts = ({"completion_tokens": n} for n in (1, 4))
    answer = read_answer(exchange(*(piece("ab", usage=count) for count in counts), usage(4)))
    assert answer.token_times.tolist() == [1.0, 2.0, 2.0, 2.0]
    assert answer.is_exact


def test_without_either_tokens_are_dealt_by_the_length_of_the_texts():
    answer = read_answer(exchange(piece("ab"), piece("abcdef"), piece("", "length"), usage(4)))
    assert answer.token_times.tolist() == [1.0, 2.0, 2.0, 2.0]
    assert not answer.is_exact


@pytest.mark.parametrize("total", [1, 2, 3, 7, 50])
def test_dealt_tokens_are_all_there_and_the_first_and_the_last_have_their_own_times(total):
    told = exchange(piece("abc"), piece("a"), piece("abcdefgh", "stop"), usage(total))
    times = read_answer(told).token_times
    assert len(times) == total
    assert times[0] == 1.0
    assert total == 1 or times[-1] == 3.0
    assert (times[1:] >= times[:-1]).all()


def test_a_token_may_have_no_text_of_its_own():
    answer = read_answer(exchange(piece("a"), piece(""), piece("é", "length"), usage(3)))
    assert answer.token_times.tolist() == [1.0, 2.0, 3.0]
    assert answer.is_exact


def test_a_chat_begins_before_its_first_token():
    answer = read_answer(
        exchange(
            delta(role="assistant", content=""),
            delta(content="Hi"),
            delta(reasoning_content="hm"),
            delta("stop", tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]),
            usage(3),
        )
    )
    assert answer.token_times.tolist() == [2.0, 3.0, 4.0]
    assert answer.text == "Hihmf{}"


def test_events_of_any_line_end_that_come_in_pieces():
    pieces = [
        (1.0, b'data: {"choi'),
        (2.0, b'ces": []}\n\ndata: {"a": 1}\r\n'),
        (3.0, b"\r\n: a comment\ndata:[DONE]\n\n"),
    ]
    assert list(events(pieces)) == [
        (2.0, b'{"choices": []}'),
        (2.0, b'{"a": 1}'),
        (3.0, b"[DONE]"),
    ]


@pytest.mark.parametrize(
    ("told", "kind", "detail"),
    [
        (
            exchange(piece("a"), {"error": {"message": "it\nbroke"}}),
            "error in the stream",
            "it broke",
        ),
        (exchange("{nonsense"), "no completion", "cannot be read"),
        (exchange("[1, 2]"), "no completion", "cannot be read"),
        (exchange(piece("a"), done=False), "stream cut short", "finish reason"),
        (exchange(piece("a", "abort")), "aborted", "by the server"),
        (exchange(piece("a"), failure=("connection lost", "why")), "connection lost", "why"),
    ],
)
def test_what_went_wrong_is_told_in_a_line(told, kind, detail):
    answer = read_answer(told)
    assert answer.failure is not None
    assert answer.failure[0] == kind
    assert detail in answer.error
    assert "\n" not in answer.error


def test_tokens_before_a_failure_are_kept():
    answer = read_answer(exchange(piece("a"), piece("b"), {"error": "gone"}))
    assert answer.token_times.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": {"message": "too long"}}', "status 400: too long"),
        (b"<html>\x00nginx</html>", "status 400: <html> nginx</html>"),
        (b"\xff", "status 400: \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_refusal_says_why(body, text):
    made = exchange(status=400)
    made.pieces = [body]
    assert read_answer(made).error == text
