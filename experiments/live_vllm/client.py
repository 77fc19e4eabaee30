"""Requests with exact lengths to a server, and when their tokens came back.

Knows what a comparison needs of an answer: every token that was asked for, each with its time. The
connections are those of the load client.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.bench.answer import read_answer
from experiments.bench.http import Exchange, HttpClient
from experiments.bench.request_body import JSON_HEADERS, encoded
from experiments.bench.target import Target, with_body

PATH = "/v1/completions"


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


class CompletionClient:
    """Talks to one server.

    Args:
        url: Where it is, e.g. http://127.0.0.1:8000.
        model: The name under which it serves its model.
        timeout_s: Longest silence of one request.
    """

    def __init__(self, url: str, model: str, timeout_s: float = 120.0) -> None:
        self._target = Target.of(url)
        self._head = self._target.head("POST", PATH, JSON_HEADERS)
        self._model = model
        self._timeout_s = timeout_s

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
            exchanges = asyncio.run(self._send_all(asks, on_end))
        finally:
            gc.enable()
        return [_answer(ask, exchange) for ask, exchange in zip(asks, exchanges, strict=True)]

    async def _send_all(
        self, asks: Sequence[Ask], on_end: Callable[[], None] | None
    ) -> list[Exchange]:
        told: Callable[[Exchange], None] | None = None
        if on_end is not None:
            call = on_end

            def told(_: Exchange) -> None:
                call()

        exchanges = [Exchange(ask.request_id, self._request(ask), told) for ask in asks]
        client = HttpClient(self._target, self._timeout_s)
        start = time.perf_counter()

        async def one(ask: Ask, exchange: Exchange) -> None:
            await asyncio.sleep(start + ask.send_at - time.perf_counter())
            await client.ask(exchange)

        try:
            await asyncio.gather(*map(one, asks, exchanges))
        finally:
            await client.close()
        return exchanges

    def _request(self, ask: Ask) -> bytes:
        wishes: dict[str, Any] = {
            "model": self._model,
            "prompt": list(ask.prompt_token_ids),
            "max_tokens": ask.num_output_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
        }
        return with_body(self._head, encoded(wishes), ask.request_id)


def _answer(ask: Ask, exchange: Exchange) -> Answer:
    seen = read_answer(exchange)
    answer = Answer(ask.request_id, seen.sent_at, error=seen.error)
    if seen.failure is None:
        answer.token_times = seen.token_times.tolist()
        if len(answer.token_times) != ask.num_output_tokens:
            got, wanted = len(answer.token_times), ask.num_output_tokens
            answer.error = f"{got} tokens were streamed and {wanted} asked for"
    return answer
