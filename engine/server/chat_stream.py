"""Writes a streamed chat, chunk by chunk: the role first, then text or pieces of tool calls.

Knows the form of a chunk and what has been told; knows no engine and no socket.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.outputs import CompletionOutput
from engine.server.answers import Placed
from engine.server.chunks import DONE, ChunkWriter, last_fields, usage_tail
from engine.server.logprobs import TokenTexts, chat_logprobs
from engine.server.schemas.chat import ChatCompletionRequest
from engine.server.state import ServerState
from engine.server.tool_use import ToolUse
from engine.server.tools.parser import CallDelta, Delta, ToolStream
from engine.server.usage import Usage

PLAIN: dict[str, Any] = {"logprobs": None, "finish_reason": None, "token_ids": None}


@dataclass(frozen=True, slots=True)
class ChatStreamParts:
    """What a chat's stream is made of.

    Attributes:
        body: What was asked.
        head: What all chunks begin with.
        role: Of the answer.
        echo: What is repeated at the start.
        prompt_token_ids: The prompt.
        prompt_text: The same as text.
        tools: How tool calls are read.
        texts: Of tokens.
        fingerprint: Of the server.
        state: Of the server; counts what was read.
    """

    body: ChatCompletionRequest
    head: dict[str, Any]
    role: str
    echo: str
    prompt_token_ids: list[int]
    prompt_text: str
    tools: ToolUse
    texts: TokenTexts
    fingerprint: str
    state: ServerState


class ChatChunks:
    """The chunks of one HTTP request.

    Args:
        parts: See there.
        usage: Counts on while the stream is written.
    """

    def __init__(self, parts: ChatStreamParts, usage: Usage) -> None:
        body = parts.body
        options = body.stream_options
        self._tells_usage = bool(options and options.include_usage)
        self._counts_on = self._tells_usage and bool(options and options.continuous_usage_stats)
        has_more = body.logprobs or body.return_token_ids or parts.tools.parser is not None
        self._is_plain = not has_more
        self._parts = parts
        self._usage = usage
        self._writer = ChunkWriter(parts.head, b'"delta":{"content":', b"}", PLAIN)
        self._num_told: dict[int, int] = {}
        self._readers: dict[int, ToolStream] = {}
        self.is_complete = False

    def write(self, placed: Sequence[Placed]) -> bytes:
        """The chunks of new outputs."""
        pieces = []
        for _, output in placed:
            for answer in output.outputs:
                if answer.index not in self._num_told:
                    self._num_told[answer.index] = 0
                    pieces.append(self._role(answer.index))
                pieces.append(self._chunk(answer))
            if output.finished:
                self._usage.add_cached([output])
                self.is_complete = True
        return b"".join(pieces)

    def end(self) -> bytes:
        """What follows the last chunk."""
        if not self._tells_usage:
            return DONE
        fields = last_fields(self._usage, self._parts.fingerprint)
        return self._writer.without_choice(fields) + DONE

    def _role(self, index: int) -> bytes:
        """The first chunk of an answer."""
        parts, body = self._parts, self._parts.body
        choice = {
            "index": index,
            "delta": {"role": parts.role, "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        prompt = {
            "prompt_token_ids": parts.prompt_token_ids if body.return_token_ids else None,
            "prompt_text": parts.prompt_text if body.return_prompt_text else None,
        }
        first = self._writer.choice(choice, self._tail(index), prompt)
        if not parts.echo:
            return first
        return first + self._writer.piece(index, parts.echo, None, self._tail(index))

    def _tail(self, index: int) -> bytes:
        if not self._counts_on:
            return b""
        return usage_tail(self._usage.prompt_tokens, self._num_told[index])

    def _chunk(self, answer: CompletionOutput) -> bytes:
        index = answer.index
        self._num_told[index] += len(answer.token_ids)
        self._usage.completion_tokens += len(answer.token_ids)
        tail = self._tail(index)
        if self._is_plain and answer.finish_reason is None:
            return self._writer.piece(index, answer.text, None, tail)
        rest = self._rest(answer)
        if self._parts.tools.parser is None:
            return self._writer.piece(index, answer.text, rest, tail)
        return self._with_calls(answer, rest, tail)

    def _rest(self, answer: CompletionOutput) -> dict[str, Any]:
        """All of a choice but its index and its delta."""
        body = self._parts.body
        logprobs = None
        if body.logprobs:
            logprobs = chat_logprobs(
                answer.token_ids, answer.logprobs or [], body.top_logprobs or 0, self._parts.texts
            )
        rest: dict[str, Any] = {"logprobs": logprobs, "finish_reason": answer.finish_reason}
        if answer.finish_reason is not None:
            rest["stop_reason"] = answer.stop_reason
        rest["token_ids"] = answer.token_ids if body.return_token_ids else None
        return rest

    def _with_calls(self, answer: CompletionOutput, rest: dict[str, Any], tail: bytes) -> bytes:
        """Chunks of an answer that may call tools: one a delta, the last one ends it."""
        deltas, has_calls = self._read(answer)
        if answer.finish_reason is not None:
            self._parts.state.note_tool_parse(is_streaming=True, has_calls=has_calls)
        if answer.finish_reason == "stop" and has_calls:
            rest["finish_reason"] = "tool_calls"
        told = _joined(deltas)
        is_silent = answer.finish_reason is None and rest["token_ids"] is None
        if not told and is_silent and rest["logprobs"] is None:
            return b""
        last = told.pop() if told else {}
        chunks = [self._choice(answer.index, delta, dict(PLAIN), tail) for delta in told]
        return b"".join([*chunks, self._choice(answer.index, last, rest, tail)])

    def _read(self, answer: CompletionOutput) -> tuple[list[Delta], bool]:
        """What an answer's new text adds, and whether a call has begun."""
        parser = self._parts.tools.parser
        assert parser is not None
        reader = self._readers.get(answer.index)
        if reader is None:
            reader = self._readers[answer.index] = parser.stream()
        deltas = reader.feed(answer.text)
        if answer.finish_reason is not None:
            deltas += reader.finish()
        if self._parts.tools.only_one:
            deltas = [each for each in deltas if isinstance(each, str) or each.index == 0]
        return deltas, reader.num_calls > 0

    def _choice(
        self, index: int, delta: dict[str, Any], rest: dict[str, Any], tail: bytes
    ) -> bytes:
        return self._writer.choice({"index": index, "delta": delta} | rest, tail)


def _joined(deltas: Sequence[Delta]) -> list[dict[str, Any]]:
    """Deltas as a chat's stream tells them; pieces of text that follow each other become one."""
    told: list[dict[str, Any]] = []
    for delta in deltas:
        if isinstance(delta, str):
            if told and "content" in told[-1]:
                told[-1]["content"] += delta
            elif delta:
                told.append({"content": delta})
        else:
            told.append({"tool_calls": [_call(delta)]})
    return told


def _call(delta: CallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": delta.arguments}
    if delta.id is None:
        return {"index": delta.index, "function": function}
    function = {"name": delta.name} | function
    return {"index": delta.index, "id": delta.id, "type": "function", "function": function}
