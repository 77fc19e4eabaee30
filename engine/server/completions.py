"""/v1/completions: prompts in, answers out.

Knows the order of things and the form of a whole answer; streams are written in
`completion_stream`.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from engine.async_llm import Prepared
from engine.outputs import CompletionOutput, PositionLogprobs, RequestOutput
from engine.server.answers import final_outputs, merged_outputs
from engine.server.body import off_loop, read_json
from engine.server.chunks import chunk_events
from engine.server.completion_stream import CompletionChunks
from engine.server.context import AnswerId, ServerContext
from engine.server.disconnect import while_connected
from engine.server.logprobs import CompletionLogprobs, TokenTexts, prompt_logprobs_of
from engine.server.prompts import Prompt, num_items, split_prompts
from engine.server.sampling import check_fields, check_room, completion_params, num_listed
from engine.server.schemas.completion import CompletionRequest
from engine.server.sse import EventStream
from engine.server.usage import Usage
from workbench.sampling_params import SamplingParams


class Completions:
    """The endpoint.

    Args:
        context: The server.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def create(self, request: Request) -> Response:
        """Answer one HTTP request."""
        context = self._context
        limit = context.settings.max_body_bytes
        body = await read_json(request, CompletionRequest, limit, long_list="prompt")
        context.check_model(body.model or None)
        check_fields(body)
        params = await off_loop(
            num_listed(body), completion_params, body, context.llm.default_params, context.limits
        )
        max_prompts = context.settings.max_answers // params.n
        prompts = await off_loop(num_items(body.prompt), split_prompts, body.prompt, max_prompts)
        name = context.answer_id("cmpl", request, body)
        job = CompletionJob(context, body, params, name)
        if body.stream:
            return EventStream(job.events(prompts))
        return await while_connected(request.receive, job.answer(prompts))


@dataclass(frozen=True, slots=True)
class CompletionJob:
    """One HTTP request.

    Attributes:
        context: The server.
        body: What was asked.
        params: The sampling parameters made of it.
        name: Of the answer.
    """

    context: ServerContext
    body: CompletionRequest
    params: SamplingParams
    name: AnswerId

    async def answer(self, prompts: Sequence[Prompt]) -> Response:
        """All at the end."""
        prepared = await self._prepare(prompts)
        outputs = await final_outputs(self.context.llm, prepared)
        echoes = await self._echoes(prepared)
        usage = Usage(sum(len(each.prompt_token_ids) for each in prepared))
        usage.add_cached(outputs)
        choices = []
        for place, output in enumerate(outputs):
            for answer in output.outputs:
                usage.completion_tokens += 0 if self._is_prompt_only else len(answer.token_ids)
                choices.append(self._choice(place, output, answer, echoes[place]))
        return Response(
            msgspec.json.encode(self._whole(choices, usage)), media_type="application/json"
        )

    async def events(self, prompts: Sequence[Prompt]) -> AsyncGenerator[bytes, None]:
        """Piece by piece."""
        prepared = await self._prepare(prompts)
        echoes = await self._echoes(prepared)
        usage = Usage(sum(len(each.prompt_token_ids) for each in prepared))
        chunks = CompletionChunks(
            body=self.body,
            head={
                "id": self.name.public,
                "object": "text_completion",
                "created": self.name.created,
                "model": self.context.settings.model_name,
            },
            prompts=[
                (each.prompt_token_ids, echo) for each, echo in zip(prepared, echoes, strict=True)
            ],
            num_answers=self.params.n,
            texts=self._texts(),
            usage=usage,
            fingerprint=self.context.fingerprint,
        )
        outputs = merged_outputs(self.context.llm, prepared)
        async with aclosing(chunk_events(outputs, chunks)) as events:
            async for data in events:
                yield data

    @property
    def _is_prompt_only(self) -> bool:
        return bool(self.body.echo) and self.body.max_tokens == 0

    async def _prepare(self, prompts: Sequence[Prompt]) -> list[Prepared]:
        """All prompts, side by side.

        Raises:
            InputError, ApiError: Of the first that cannot be served.
        """
        if len(prompts) == 1:
            return [await self._prepare_one(f"{self.name.internal}-0", prompts[0])]
        ids = [f"{self.name.internal}-{place}" for place in range(len(prompts))]
        return list(await asyncio.gather(*map(self._prepare_one, ids, prompts)))

    async def _prepare_one(self, request_id: str, prompt: Prompt) -> Prepared:
        llm = self.context.llm
        whole: Any = prompt
        if isinstance(prompt, str):
            self.context.check_length(prompt, self.params)
        if isinstance(prompt, str) and self.body.add_special_tokens is False:
            token_ids = await llm.tokenize(prompt, add_special_tokens=False)
            whole = {"prompt": prompt, "prompt_token_ids": token_ids}
        prepared = await self.context.prepare(request_id, whole, self.params, self.body)
        check_room(self.params, len(prepared.prompt_token_ids), self.context.limits)
        return prepared

    async def _echoes(self, prepared: Sequence[Prepared]) -> list[str]:
        """The text of each prompt, where it is to be repeated."""
        if not self.body.echo:
            return [""] * len(prepared)
        return [await self._text_of(each) for each in prepared]

    async def _text_of(self, prepared: Prepared) -> str:
        text = prepared.source.prompt
        if text is not None or self.context.llm.tokenizer is None:
            return text or ""
        return await self.context.llm.detokenize(prepared.prompt_token_ids)

    def _texts(self) -> TokenTexts:
        return self.context.token_texts(as_ids=bool(self.body.return_tokens_as_token_ids))

    def _whole(self, choices: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        return {
            "id": self.name.public,
            "object": "text_completion",
            "created": self.name.created,
            "model": self.context.settings.model_name,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": self.context.fingerprint,
            "usage": usage.as_dict(),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }

    def _choice(
        self, place: int, output: RequestOutput, answer: CompletionOutput, echo: str
    ) -> dict[str, Any]:
        text, token_ids = answer.text, answer.token_ids
        if self._is_prompt_only:
            text, token_ids = "", []
        is_asked = self.body.prompt_logprobs is not None
        with_ids = bool(self.body.return_token_ids)
        return {
            "index": place * self.params.n + answer.index,
            "text": echo + text,
            "logprobs": self._logprobs(output, answer),
            "finish_reason": "length" if self._is_prompt_only else answer.finish_reason,
            "stop_reason": None if self._is_prompt_only else answer.stop_reason,
            "token_ids": token_ids if with_ids else None,
            "prompt_logprobs": prompt_logprobs_of(output.prompt_logprobs) if is_asked else None,
            "prompt_token_ids": output.prompt_token_ids if with_ids else None,
            "routed_experts": None,
        }

    def _logprobs(self, output: RequestOutput, answer: CompletionOutput) -> dict[str, Any] | None:
        if self.body.logprobs is None:
            return None
        token_ids: list[int] = []
        positions: list[PositionLogprobs | None] = []
        if self.body.echo:
            token_ids += output.prompt_token_ids
            positions += output.prompt_logprobs or [None] * len(token_ids)
        if not self._is_prompt_only:
            token_ids += answer.token_ids
            positions += answer.logprobs or [None] * len(answer.token_ids)
        return CompletionLogprobs(self._texts()).write(token_ids, positions)
