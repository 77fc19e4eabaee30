"""/v1/chat/completions: conversations in, answers out.

Knows the order of things and the form of a whole answer; streams are written in `chat_stream`.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from engine.async_llm import Prepared
from engine.outputs import CompletionOutput, RequestOutput
from engine.server.answers import final_outputs, merged_outputs
from engine.server.body import off_loop, read_json
from engine.server.chat_prompt import render_chat
from engine.server.chat_stream import ChatChunks, ChatStreamParts
from engine.server.chunks import chunk_events
from engine.server.context import AnswerId, ServerContext
from engine.server.disconnect import while_connected
from engine.server.logprobs import TokenTexts, chat_logprobs, prompt_logprobs_of
from engine.server.sampling import chat_params, check_fields, check_room, num_listed
from engine.server.schemas.chat import ChatCompletionRequest
from engine.server.sse import EventStream
from engine.server.tool_use import ToolUse, tool_use_of
from engine.server.usage import Usage
from workbench.sampling_params import SamplingParams


class ChatCompletions:
    """The endpoint.

    Args:
        context: The server.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def create(self, request: Request) -> Response:
        """Answer one HTTP request."""
        context = self._context
        body = await read_json(request, ChatCompletionRequest, context.settings.max_body_bytes)
        context.check_model(body.model or None)
        check_fields(body)
        params = await off_loop(
            num_listed(body), chat_params, body, context.llm.default_params, context.limits
        )
        tools = tool_use_of(body, context.settings)
        params = tools.apply_to(params)
        job = ChatJob(context, body, params, tools, context.answer_id("chatcmpl", request, body))
        if body.stream:
            return EventStream(job.events())
        return await while_connected(request.receive, job.answer())


@dataclass(frozen=True, slots=True)
class ChatJob:
    """One HTTP request.

    Attributes:
        context: The server.
        body: What was asked.
        params: The sampling parameters made of it.
        tools: Which tools may be called, and how calls are read.
        name: Of the answer.
    """

    context: ServerContext
    body: ChatCompletionRequest
    params: SamplingParams
    tools: ToolUse
    name: AnswerId

    async def answer(self) -> Response:
        """All at the end."""
        prepared = await self._prepare()
        (output,) = await final_outputs(self.context.llm, [prepared])
        usage = Usage(len(prepared.prompt_token_ids))
        usage.add_cached([output])
        usage.completion_tokens = sum(len(answer.token_ids) for answer in output.outputs)
        whole = self._whole(output, usage)
        return Response(msgspec.json.encode(whole), media_type="application/json")

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Piece by piece."""
        prepared = await self._prepare()
        head = {
            "id": self.name.public,
            "object": "chat.completion.chunk",
            "created": self.name.created,
            "model": self.context.settings.model_name,
        }
        parts = ChatStreamParts(
            body=self.body,
            head=head,
            role=self._role,
            echo=self._echo,
            prompt_token_ids=prepared.prompt_token_ids,
            prompt_text=prepared.source.prompt or "",
            tools=self.tools,
            texts=self._texts(),
            fingerprint=self.context.fingerprint,
            state=self.context.state,
        )
        chunks = ChatChunks(parts, Usage(len(prepared.prompt_token_ids)))
        outputs = merged_outputs(self.context.llm, [prepared])
        async with aclosing(chunk_events(outputs, chunks)) as events:
            async for data in events:
                yield data

    @property
    def _role(self) -> str:
        """A continued message keeps its role."""
        last = self.body.messages[-1].role
        return last if self.body.continue_final_message else self.context.settings.response_role

    @property
    def _echo(self) -> str:
        """The last message, where it is continued and to be repeated."""
        if not (self.body.echo and self.body.continue_final_message):
            return ""
        content = self.body.messages[-1].content
        if isinstance(content, list):
            return "\n".join(part.text or "" for part in content)
        return content or ""

    async def _prepare(self) -> Prepared:
        body, llm = self.body, self.context.llm
        text = await render_chat(
            llm,
            self.context.settings,
            body,
            documents=body.documents,
            reasoning_effort=body.reasoning_effort,
        )
        self.context.check_length(text, self.params)
        # the template has written the special tokens
        token_ids = await llm.tokenize(text, add_special_tokens=bool(body.add_special_tokens))
        prompt = {"prompt": text, "prompt_token_ids": token_ids}
        prepared = await self.context.prepare(self.name.internal, prompt, self.params, body)
        check_room(self.params, len(prepared.prompt_token_ids), self.context.limits)
        return prepared

    def _texts(self) -> TokenTexts:
        return self.context.token_texts(as_ids=bool(self.body.return_tokens_as_token_ids))

    def _whole(self, output: RequestOutput, usage: Usage) -> dict[str, Any]:
        body = self.body
        return {
            "id": self.name.public,
            "object": "chat.completion",
            "created": self.name.created,
            "model": self.context.settings.model_name,
            "choices": [self._choice(answer) for answer in output.outputs],
            "service_tier": None,
            "system_fingerprint": self.context.fingerprint,
            "usage": usage.as_dict(),
            "prompt_logprobs": prompt_logprobs_of(output.prompt_logprobs),
            "prompt_token_ids": output.prompt_token_ids if body.return_token_ids else None,
            "prompt_text": output.prompt if body.return_prompt_text else None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }

    def _choice(self, answer: CompletionOutput) -> dict[str, Any]:
        body = self.body
        content: str | None = self._echo + answer.text
        calls: list[dict[str, Any]] = []
        if self.tools.parser is not None:
            parsed = self.tools.parser.parse(answer.text)
            has_calls = bool(parsed.tool_calls)
            self.context.state.note_tool_parse(is_streaming=False, has_calls=has_calls)
            content = parsed.content
            calls = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in parsed.tool_calls[: 1 if self.tools.only_one else None]
            ]
        finish_reason = answer.finish_reason
        if calls and finish_reason == "stop":
            finish_reason = "tool_calls"
        logprobs = None
        if body.logprobs:
            logprobs = chat_logprobs(
                answer.token_ids, answer.logprobs or [], body.top_logprobs or 0, self._texts()
            )
        return {
            "index": answer.index,
            "message": _message(self._role, content, calls),
            "logprobs": logprobs,
            "finish_reason": finish_reason,
            "stop_reason": answer.stop_reason,
            "token_ids": answer.token_ids if body.return_token_ids else None,
            "routed_experts": None,
        }


def _message(role: str, content: str | None, calls: list[dict[str, Any]]) -> dict[str, Any]:
    """The model's message; the field `tool_calls` is there only if there are some."""
    message: dict[str, Any] = {
        "role": role,
        "content": content,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if calls:
        message["tool_calls"] = calls
    return message | {"reasoning": None}
