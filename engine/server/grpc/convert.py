"""From messages to the engine's words and back.

Copies fields; what their values may be, the engine checks. Knows no call and no status code.
"""

from collections.abc import Sequence
from typing import Any

from engine.async_llm import AsyncLLM
from engine.errors import InputError
from engine.input_processor import Prompt
from engine.outputs import CompletionOutput, PositionLogprobs, RequestOutput
from engine.server.grpc.schema import Schema
from workbench.sampling_params import RequestOutputKind, SamplingParams
from workbench.structured_outputs_params import StructuredOutputsParams

ROLES = ("system", "developer", "user", "assistant", "tool")
LISTS = ("stop", "stop_token_ids", "bad_words")


async def prompt_of(request: Any, llm: AsyncLLM) -> Prompt:
    """The prompt of a GenerateRequest; a conversation is rendered.

    Raises:
        InputError: There is none, a role is unknown, or the chat template refuses it.
    """
    kind = request.WhichOneof("prompt")
    if kind is None:
        raise InputError("prompt is missing: set text, token_ids or conversation")
    if kind == "text":
        return str(request.text)
    if kind == "token_ids":
        return list(request.token_ids.ids)
    messages = [
        {"role": message.role, "content": message.content}
        for message in request.conversation.messages
    ]
    if not messages:
        raise InputError("conversation has no messages: add one with role and content")
    for message in messages:
        if message["role"] not in ROLES:
            role = message["role"][:100]
            raise InputError(f"role={role!r} is unknown: it must be one of {', '.join(ROLES)}")
    text = await llm.render_chat(messages)
    # the template has written the special tokens already
    token_ids = await llm.tokenize(text, add_special_tokens=False)
    return {"prompt": text, "prompt_token_ids": token_ids}


def sampling_params_of(request: Any, default: SamplingParams) -> SamplingParams:
    """The sampling parameters of a GenerateRequest; fields that are not set have the default.

    Raises:
        ConfigError: A value is out of range.
    """
    message = request.sampling_params
    changes: dict[str, Any] = {
        field.name: value
        for field, value in message.ListFields()
        if field.has_presence and field.name != "structured_output"
    }
    changes |= {name: list(getattr(message, name)) for name in LISTS if getattr(message, name)}
    if message.logit_bias:
        changes["logit_bias"] = dict(message.logit_bias)
    if message.HasField("structured_output"):
        changes["structured_outputs"] = _form_of(message.structured_output)
    kind = RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY
    return default.clone(**changes, output_kind=kind)


def response_of(schema: Schema, output: RequestOutput, request_id: str) -> Any:
    """An output as a GenerateResponse, without usage."""
    answers = [_answer(schema, answer) for answer in output.outputs]
    return schema.GenerateResponse(request_id=request_id, answers=answers, finished=output.finished)


def usage_of(schema: Schema, output: RequestOutput, num_tokens: int) -> Any:
    """What a request has cost; `num_tokens` are those of all its answers."""
    metrics = output.metrics
    return schema.Usage(
        prompt_tokens=len(output.prompt_token_ids),
        cached_prompt_tokens=output.num_cached_tokens or 0,
        completion_tokens=num_tokens,
        num_preemptions=0 if metrics is None else metrics.num_preemptions,
    )


def _form_of(message: Any) -> StructuredOutputsParams:
    kind = message.WhichOneof("constraint")
    if kind is None:
        raise InputError("structured_output is empty: set one of its fields, or leave it out")
    value = getattr(message, kind)
    if kind == "choice":
        return StructuredOutputsParams(choice=list(value.choices))
    fields = {"json" if kind == "json_schema" else kind: value}
    return StructuredOutputsParams(**fields)


def _answer(schema: Schema, answer: CompletionOutput) -> Any:
    message = schema.Answer(
        index=answer.index,
        text=_utf8(answer.text),
        token_ids=answer.token_ids,
        finish_reason=answer.finish_reason or "",
    )
    if answer.logprobs is not None:
        message.logprobs.extend(_logprobs(schema, answer.token_ids, answer.logprobs))
    if isinstance(answer.stop_reason, str):
        message.stop_string = _utf8(answer.stop_reason)
    elif answer.stop_reason is not None:
        message.stop_token_id = answer.stop_reason
    return message


def _logprobs(
    schema: Schema, token_ids: Sequence[int], positions: Sequence[PositionLogprobs]
) -> list[Any]:
    return [
        schema.PositionLogprobs(
            tokens=[
                schema.TokenLogprob(
                    token_id=token_id,
                    logprob=told.logprob,
                    rank=told.rank or 0,
                    text=_utf8(told.decoded_token or ""),
                )
                for token_id, told in position.items()
            ]
        )
        for position in positions
    ]


def _utf8(text: str) -> str:
    """Text that protobuf takes: half a surrogate pair becomes a replacement character."""
    return text.encode("utf-8", "replace").decode("utf-8")
