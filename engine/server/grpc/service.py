"""The calls of workbench.proto on an engine: what they do.

Knows the engine and the messages; knows no port. Which status an error gets, `status` knows.
"""

import logging
import re
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from grpc import StatusCode

from engine.async_llm import AsyncLLM
from engine.outputs import RequestOutput
from engine.server.grpc.convert import prompt_of, response_of, sampling_params_of, usage_of
from engine.server.grpc.schema import Schema
from engine.server.grpc.status import CallError, Keys, answers_errors, streams_errors
from engine.server.request_context import RequestContext, enter_context
from engine.server.settings import ServerSettings
from engine.server.state import ServerState
from engine.server.version import version

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[\x21-\x7e]{0,128}")
_TRACE_HEADERS = ("traceparent", "tracestate")


class WorkbenchService:
    """Answers the calls.

    Args:
        llm: The engine.
        settings: Of the server: names of the model, keys, limits.
        state: Load of the server, for the queue's limit; drains when it does.
        schema: The messages.
    """

    def __init__(
        self, llm: AsyncLLM, settings: ServerSettings, state: ServerState, schema: Schema
    ) -> None:
        self._llm = llm
        self._settings = settings
        self._state = state
        self._schema = schema
        self._keys = Keys(settings.api_keys)
        self._running: dict[str, str] = {}

    def handlers(self) -> Any:
        """What a server adds."""
        calls = {"Generate": self.generate, "Abort": self.abort, "ModelInfo": self.model_info}
        return self._schema.handlers(calls)

    @streams_errors
    async def generate(self, request: Any, context: Any) -> AsyncGenerator[Any, None]:
        """Answer a prompt."""
        self._keys.check(context)
        self._check_open()
        request_id = self._name(request.request_id)
        metadata = dict(context.invocation_metadata() or ())
        traces = {name: str(metadata[name]) for name in _TRACE_HEADERS if name in metadata}
        enter_context(RequestContext(request_id, traces))
        self._running[request_id] = internal_id = f"grpc-{request_id}-{uuid.uuid4().hex[:8]}"
        try:
            with self._state.entering():
                prepared = await self._prepare(request, internal_id, context)
                async with aclosing(self._llm.stream(prepared)) as outputs:
                    async for response in self._responses(outputs, request_id):
                        yield response
        finally:
            del self._running[request_id]

    @answers_errors
    async def abort(self, request: Any, context: Any) -> Any:
        """End a request."""
        self._keys.check(context)
        internal_id = self._running.get(request.request_id)
        if internal_id is None:
            raise CallError(
                StatusCode.NOT_FOUND,
                f"no request runs under request_id={request.request_id[:128]!r}: it may have ended",
            )
        await self._llm.abort(internal_id)
        return self._schema.AbortResponse()

    @answers_errors
    async def model_info(self, request: Any, context: Any) -> Any:
        """Tell what is served."""
        self._keys.check(context)
        info = self._llm.info
        return self._schema.ModelInfoResponse(
            model_names=self._settings.served_model_names,
            world=info.world,
            vocab_size=info.vocab_size,
            max_model_len=info.max_model_len,
            max_num_seqs=info.max_num_seqs,
            max_num_batched_tokens=info.max_num_batched_tokens,
            num_kv_blocks=info.num_kv_blocks,
            block_size=info.block_size,
            enable_prefix_caching=info.enable_prefix_caching,
            has_tokenizer=self._llm.tokenizer is not None,
            version=version(),
        )

    def _check_open(self) -> None:
        """Refuse work while there can be none, or too much waits."""
        if self._state.is_draining:
            raise CallError(StatusCode.UNAVAILABLE, "the server is shutting down: try another one")
        limit = self._settings.max_queue
        if not self._state.has_room(limit):
            raise CallError(
                StatusCode.RESOURCE_EXHAUSTED,
                f"{self._state.num_queued} requests wait already, and max_queue={limit}: try again "
                "later",
            )

    def _name(self, request_id: str) -> str:
        if not _REQUEST_ID.fullmatch(request_id):
            raise CallError(
                StatusCode.INVALID_ARGUMENT,
                "request_id must be at most 128 printable ASCII characters without spaces",
            )
        if request_id in self._running:
            raise CallError(
                StatusCode.ALREADY_EXISTS, f"request_id={request_id!r} is in use: choose another"
            )
        return request_id or uuid.uuid4().hex

    async def _prepare(self, request: Any, internal_id: str, context: Any) -> Any:
        names = self._settings.served_model_names
        if request.model and request.model not in names:
            known = ", ".join(names)
            reason = f"model={request.model[:200]!r} is not served: this server has {known}"
            raise CallError(StatusCode.NOT_FOUND, reason)
        remaining = context.time_remaining()
        params = sampling_params_of(request, self._llm.default_params)
        self._check_answers(params.n, params.logprobs)
        return await self._llm.prepare(
            internal_id,
            await prompt_of(request, self._llm),
            params,
            priority=request.priority,
            client_id=(request.client_id or "default")[:256],
            session_id=request.session_id or None,
            deadline=None if remaining is None else time.perf_counter() + remaining,
        )

    def _check_answers(self, n: int, logprobs: int | None) -> None:
        most_answers, most_logprobs = self._settings.max_answers, self._settings.max_logprobs
        if n > most_answers:
            raise CallError(
                StatusCode.INVALID_ARGUMENT, f"n={n} must be at most max_answers={most_answers}"
            )
        if logprobs is not None and most_logprobs != -1 and not 0 <= logprobs <= most_logprobs:
            raise CallError(
                StatusCode.INVALID_ARGUMENT,
                f"logprobs={logprobs} must be at most max_logprobs={most_logprobs}, and not "
                "negative: lower it, or start the server with a higher --max-logprobs",
            )

    async def _responses(
        self, outputs: AsyncGenerator[RequestOutput, None], request_id: str
    ) -> AsyncGenerator[Any, None]:
        """The stream of responses; raises CallError where an answer did not end well."""
        num_tokens = 0
        ends: list[tuple[str | None, object]] = []
        async for output in outputs:
            response = response_of(self._schema, output, request_id)
            num_tokens += sum(len(answer.token_ids) for answer in output.outputs)
            ends += [(answer.finish_reason, answer.stop_reason) for answer in output.outputs]
            if output.finished:
                response.usage.CopyFrom(usage_of(self._schema, output, num_tokens))
            yield response
        for reason, detail in ends:
            if reason == "error":
                raise CallError(StatusCode.INTERNAL, str(detail or "the request failed"))
            if reason == "abort":
                raise CallError(StatusCode.ABORTED, "the request was aborted")
