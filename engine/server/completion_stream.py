"""Writes a streamed completion, chunk by chunk.

Knows the form of a chunk and what has been told; knows no engine and no socket.
"""

from collections.abc import Sequence
from typing import Any

from engine.outputs import CompletionOutput, PositionLogprobs, RequestOutput
from engine.server.answers import Placed
from engine.server.chunks import DONE, ChunkWriter, last_fields, usage_tail
from engine.server.logprobs import CompletionLogprobs, TokenTexts
from engine.server.schemas.completion import CompletionRequest
from engine.server.usage import Usage

PLAIN: dict[str, Any] = {
    "logprobs": None,
    "finish_reason": None,
    "stop_reason": None,
    "prompt_token_ids": None,
    "token_ids": None,
}


class CompletionChunks:
    """The chunks of one HTTP request.

    Args:
        body: What was asked.
        head: What all chunks begin with.
        prompts: The tokens of each prompt, and its text where it is repeated.
        num_answers: Of each prompt.
        texts: Of tokens.
        usage: Counts on while the stream is written.
        fingerprint: Of the server.
    """

    def __init__(
        self,
        body: CompletionRequest,
        head: dict[str, Any],
        prompts: Sequence[tuple[list[int], str]],
        num_answers: int,
        texts: TokenTexts,
        usage: Usage,
        fingerprint: str,
    ) -> None:
        options = body.stream_options
        self._tells_usage = bool(options and options.include_usage)
        self._counts_on = self._tells_usage and bool(options and options.continuous_usage_stats)
        self._is_prompt_only = bool(body.echo) and body.max_tokens == 0
        self._is_plain = body.logprobs is None and not body.return_token_ids
        self._body = body
        self._prompts = prompts
        self._num_answers = num_answers
        self._texts = texts
        self._usage = usage
        self._fingerprint = fingerprint
        self._writer = ChunkWriter(head, b'"text":', b"", PLAIN)
        self._null_usage = b',"usage":null' if self._tells_usage else b""
        self._num_told: dict[int, int] = {}
        self._columns: dict[int, CompletionLogprobs] = {}
        self._ended: list[RequestOutput] = []

    @property
    def is_complete(self) -> bool:
        """Whether all answers have ended."""
        return len(self._ended) == len(self._prompts)

    def write(self, placed: Sequence[Placed]) -> bytes:
        """The chunks of new outputs."""
        pieces = []
        for place, output in placed:
            pieces += [self._chunk(place, output, answer) for answer in output.outputs]
            if output.finished:
                self._ended.append(output)
        return b"".join(pieces)

    def end(self) -> bytes:
        """What follows the last chunk."""
        if not self._tells_usage:
            return DONE
        self._usage.add_cached(self._ended)
        return self._writer.without_choice(last_fields(self._usage, self._fingerprint)) + DONE

    def _chunk(self, place: int, output: RequestOutput, answer: CompletionOutput) -> bytes:
        index = place * self._num_answers + answer.index
        num_told = self._num_told.get(index)
        num_new = 0 if self._is_prompt_only else len(answer.token_ids)
        self._num_told[index] = (num_told or 0) + num_new
        self._usage.completion_tokens += num_new
        tail = self._null_usage
        if self._counts_on:
            tail = usage_tail(len(self._prompts[place][0]), self._num_told[index])
        if num_told is not None and answer.finish_reason is None and self._is_plain:
            return self._writer.piece(index, answer.text, None, tail)
        text = "" if self._is_prompt_only else answer.text
        if num_told is None:
            text = self._prompts[place][1] + text
        fields = self._fields(index, place, output, answer, num_told is None)
        return self._writer.piece(index, text, fields, tail)

    def _fields(
        self,
        index: int,
        place: int,
        output: RequestOutput,
        answer: CompletionOutput,
        is_first: bool,
    ) -> dict[str, Any]:
        """All of a choice but its index and its text."""
        with_ids = bool(self._body.return_token_ids)
        finish_reason = answer.finish_reason
        if self._is_prompt_only and finish_reason is not None:
            finish_reason = "length"
        token_ids = [] if self._is_prompt_only else answer.token_ids
        return {
            "logprobs": self._logprobs(index, place, output, answer, is_first),
            "finish_reason": finish_reason,
            "stop_reason": None if self._is_prompt_only else answer.stop_reason,
            "prompt_token_ids": self._prompts[place][0] if with_ids and is_first else None,
            "token_ids": token_ids if with_ids else None,
        }

    def _logprobs(
        self,
        index: int,
        place: int,
        output: RequestOutput,
        answer: CompletionOutput,
        is_first: bool,
    ) -> dict[str, Any] | None:
        if self._body.logprobs is None:
            return None
        columns = self._columns.get(index)
        if columns is None:
            columns = self._columns[index] = CompletionLogprobs(self._texts)
        token_ids: list[int] = []
        positions: list[PositionLogprobs | None] = []
        if is_first and self._body.echo:
            token_ids += self._prompts[place][0]
            positions += output.prompt_logprobs or [None] * len(token_ids)
        if not self._is_prompt_only:
            token_ids += answer.token_ids
            positions += answer.logprobs or [None] * len(answer.token_ids)
        return columns.write(token_ids, positions)
