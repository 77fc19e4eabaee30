"""Keeps the outputs of one request until somebody fetches them; what is not fetched is merged.

So a slow client gets bigger pieces, nothing is lost, and no queue grows. Knows outputs; knows no
request and no core.
"""

import asyncio

from engine.outputs import CompletionOutput, RequestOutput
from workbench.sampling_params import RequestOutputKind


class OutputCollector:
    """A place for one output.

    Args:
        kind: What the outputs hold.

    Attributes:
        is_open: Whether the request has not ended.
    """

    __slots__ = ("_error", "_is_delta", "_output", "_waiter", "is_open")

    def __init__(self, kind: RequestOutputKind) -> None:
        self._is_delta = kind is RequestOutputKind.DELTA
        self._output: RequestOutput | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.is_open = True

    def put(self, output: RequestOutput) -> None:
        """Keep an output."""
        if self._output is None:
            self._output = output
        else:
            _merge(self._output, output, self._is_delta)
        self._wake()

    def fail(self, error: Exception) -> None:
        """There will be no more outputs."""
        self._error = error
        self.is_open = False
        self._wake()

    async def get(self) -> RequestOutput:
        """What has come since the last call; waits for something.

        Raises:
            Exception: What `fail` was told, once everything has been fetched.
        """
        while self._output is None:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        output, self._output = self._output, None
        return output

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _merge(old: RequestOutput, new: RequestOutput, is_delta: bool) -> None:
    """Take a newer output into one that nobody has seen."""
    for answer in new.outputs:
        place = _place(old.outputs, answer.index)
        if place < len(old.outputs) and old.outputs[place].index == answer.index:
            if is_delta:
                _append(old.outputs[place], answer)
            else:
                old.outputs[place] = answer
        else:
            old.outputs.insert(place, answer)
    old.finished = new.finished
    old.metrics = new.metrics
    old.num_cached_tokens = new.num_cached_tokens
    old.prompt_logprobs = new.prompt_logprobs


def _place(answers: list[CompletionOutput], index: int) -> int:
    """Where the answer stands, or would, among answers in order of their index."""
    for place, answer in enumerate(answers):
        if answer.index >= index:
            return place
    return len(answers)


def _append(old: CompletionOutput, new: CompletionOutput) -> None:
    old.text += new.text
    old.token_ids += new.token_ids
    if old.logprobs is not None and new.logprobs is not None:
        old.logprobs += new.logprobs
    old.cumulative_logprob = new.cumulative_logprob
    old.finish_reason = new.finish_reason
    old.stop_reason = new.stop_reason
