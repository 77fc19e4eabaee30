"""What the client saw of a request: when its tokens came, how it ended, or why it failed.

Knows server-sent events and the JSON of completions and chat completions. Knows no connection.

A server says how many tokens a piece of text holds by `token_ids` or by a running usage; most say
only how many there were in all. Where that number is the number of pieces, each is one token.
Where it is not, the tokens are dealt to the pieces by the length of their texts, and the answer
says that its times are not exact.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.bench.http import Exchange

DATA = b"data:"
DONE = b"[DONE]"
MAX_DETAIL = 300
ABORTED = "aborted"
Floats = NDArray[np.float64]


@dataclass(slots=True)
class Answer:
    """What came of one request; times are those of the exchange.

    Attributes:
        token_times: When each output token came, shape [output tokens].
        is_exact: Whether each token has the time of its own piece.
        finish_reason: As the server said it.
        text: All of it.
        token_ids: Of the answer, where the server tells them.
        prompt_tokens, cached_tokens: As the server counted them; None where it does not tell.
        failure: (kind, detail) of a request that was not answered to its end.
    """

    request_id: str
    sent_at: float
    ended_at: float
    token_times: Floats = field(default_factory=lambda: np.empty(0))
    is_exact: bool = True
    finish_reason: str | None = None
    text: str = ""
    token_ids: list[int] | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    failure: tuple[str, str] | None = None

    @property
    def error(self) -> str | None:
        """Why it failed, in a line."""
        return None if self.failure is None else ": ".join(part for part in self.failure if part)


@dataclass(slots=True)
class _Piece:
    """A piece of the answer: its time, its text, and the tokens in it as far as it is known."""

    at: float
    text: str
    is_end: bool
    ids: list[int] | None
    total: int | None  # output tokens up to here, where the server keeps a running count


def read_answer(exchange: Exchange) -> Answer:
    """The answer in a finished exchange. What is broken in it becomes its failure."""
    answer = Answer(exchange.request_id, exchange.sent_at, exchange.ended_at)
    answer.failure = exchange.failure
    if exchange.status and exchange.status != 200:
        # also where the connection broke afterwards: the status says more
        answer.failure = (f"status {exchange.status}", _message(b"".join(exchange.pieces)))
        return answer
    pieces: list[_Piece] = []
    total = None
    is_done = False
    try:
        for at, data in events(zip(exchange.times, exchange.pieces, strict=True)):
            if data == DONE:
                is_done = True
                continue
            event = json.loads(data)
            if "error" in event:
                answer.failure = ("error in the stream", _said(event["error"]))
                break
            total = _read_usage(answer, event)
            pieces += _pieces(answer, at, event, total)
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        answer.failure = ("no completion", f"the stream cannot be read ({error})"[:MAX_DETAIL])
    _time_tokens(answer, pieces, total)
    if answer.failure is None and answer.finish_reason == "abort":
        answer.failure = (ABORTED, "by the server")
    if answer.failure is None and not (is_done or answer.finish_reason):
        answer.failure = ("stream cut short", "it ended without a finish reason")
    return answer


def events(pieces: Iterable[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The data of every event, with the time of the piece that completed it."""
    rest = b""
    for at, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(DATA):
                yield at, line[len(DATA) :].strip()


def _read_usage(answer: Answer, event: Mapping[str, Any]) -> int | None:
    """Takes the counts of an event; the output tokens so far, if it tells them."""
    usage = event.get("usage")
    if not usage:
        return None
    answer.prompt_tokens = usage.get("prompt_tokens", answer.prompt_tokens)
    details = usage.get("prompt_tokens_details") or {}
    answer.cached_tokens = details.get("cached_tokens", answer.cached_tokens)
    total: int | None = usage.get("completion_tokens")
    return total


def _pieces(
    answer: Answer, at: float, event: Mapping[str, Any], total: int | None
) -> Iterator[_Piece]:
    for choice in event.get("choices", ()):
        reason = choice.get("finish_reason")
        answer.finish_reason = reason or answer.finish_reason
        text = choice.get("text")
        if text is None:
            delta = choice.get("delta") or {}
            if "role" in delta and not delta.get("content") and not reason:
                continue  # the opening of a chat answer, before any token
            text = _delta_text(delta)
        answer.text += text
        yield _Piece(at, text, bool(reason), choice.get("token_ids"), total)


def _delta_text(delta: Mapping[str, Any]) -> str:
    names = ("reasoning_content", "reasoning", "content")
    text = "".join(delta.get(name) or "" for name in names)
    for call in delta.get("tool_calls") or ():
        function = call.get("function") or {}
        text += (function.get("name") or "") + (function.get("arguments") or "")
    return text


def _time_tokens(answer: Answer, pieces: Sequence[_Piece], total: int | None) -> None:
    """Sets the tokens' times. `total` is the count of the last event, usually all there were."""
    counts: list[int] | None = None
    if any(piece.ids is not None for piece in pieces):
        counts = [len(piece.ids or ()) for piece in pieces]
        answer.token_ids = [token for piece in pieces for token in piece.ids or ()]
    elif pieces and all(piece.total is not None for piece in pieces):
        totals = [piece.total or 0 for piece in pieces]
        counts = np.maximum(np.diff(totals, prepend=0), 0).tolist()
    if counts is not None:
        times = [piece.at for piece in pieces]
        answer.token_times = np.repeat(np.array(times, dtype=np.float64), counts)
        return
    with_text = [piece for piece in pieces if piece.text]
    for one_each in (with_text, [p for p in pieces if p.text or not p.is_end], pieces):
        if total is None or len(one_each) == total:
            answer.token_times = np.array([piece.at for piece in one_each], dtype=np.float64)
            return
    answer.is_exact = False
    answer.token_times = _dealt(with_text or pieces, total or 0)


def _dealt(pieces: Sequence[_Piece], total: int) -> Floats:
    """Times of so many tokens over pieces by the lengths of their texts, shape [total]."""
    if not pieces or not total:
        return np.empty(0)
    reached = np.cumsum([max(len(piece.text), 1) for piece in pieces])
    middles = (np.arange(total) + 0.5) / total * reached[-1]
    owners = np.searchsorted(reached, middles)
    owners[0], owners[-1] = 0, len(pieces) - 1 if total > 1 else 0
    return np.array([piece.at for piece in pieces], dtype=np.float64)[owners]


def _message(body: bytes) -> str:
    """What an error's body says, in a line."""
    try:
        return _said(json.loads(body).get("error"))
    except (ValueError, AttributeError):
        return _line(body.decode(errors="replace"))


def _said(error: Any) -> str:
    text = error.get("message", error) if isinstance(error, Mapping) else error
    return _line(str(text))


def _line(text: str) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(plain.split())[:MAX_DETAIL]
