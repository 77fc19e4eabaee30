"""From a conversation as OpenAI sends it to the text of a prompt.

Messages are put into the form that chat templates expect. Knows roles and parts; the template
itself is run by the engine.
"""

import json
from typing import Any

from engine.async_llm import AsyncLLM
from engine.server.errors import ApiError
from engine.server.schemas.chat import ChatTemplateFields, Message, ToolCall
from engine.server.settings import ServerSettings

RESERVED = frozenset(
    {
        *("self", "tokenizer", "conversation", "messages", "tools", "documents", "chat_template"),
        *("add_generation_prompt", "continue_final_message", "tokenize", "padding", "truncation"),
        *("max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
        *("tokenizer_kwargs",),
    }
)
"""Names that chat_template_kwargs must not take over: fields of their own, or not a template's."""


async def render_chat(
    llm: AsyncLLM,
    settings: ServerSettings,
    body: ChatTemplateFields,
    **variables: Any,
) -> str:
    """The prompt of a conversation.

    Args:
        llm: Runs the template.
        settings: Says which template, and whether a request may bring one.
        body: The conversation.
        variables: Further ones of the template; None is left out.

    Raises:
        ApiError: 400: the conversation, or the wish, cannot be honoured.
        InputError: The template refuses it.
    """
    _check_wishes(settings, body)
    template = body.chat_template or settings.chat_template
    given = {name: value for name, value in variables.items() if value is not None}
    return await llm.render_chat(
        _messages(llm, template, body),
        chat_template=template,
        add_generation_prompt=bool(body.add_generation_prompt),
        continue_final_message=bool(body.continue_final_message),
        tools=_tools(body),
        **_own_variables(body) | given,
    )


def _check_wishes(settings: ServerSettings, body: ChatTemplateFields) -> None:
    if body.add_generation_prompt and body.continue_final_message:
        raise ApiError(
            400,
            "continue_final_message and add_generation_prompt exclude each other: set "
            "add_generation_prompt=false",
            "continue_final_message",
        )
    if body.chat_template is not None and not settings.allow_chat_template:
        raise ApiError(
            400,
            "chat_template is not allowed by this server: leave it out, or start the server with "
            "--trust-request-chat-template",
            "chat_template",
        )


def _own_variables(body: ChatTemplateFields) -> dict[str, Any]:
    variables = body.chat_template_kwargs or {}
    taken = sorted(RESERVED & variables.keys())
    if taken:
        raise ApiError(
            400,
            f"chat_template_kwargs must not hold {taken[0]!r}: it is no variable of a template",
            "chat_template_kwargs",
        )
    return variables


def _tools(body: ChatTemplateFields) -> list[dict[str, Any]] | None:
    if not body.tools:
        return None
    return [{"type": tool.type} | tool.model_dump(exclude_none=True) for tool in body.tools]


def _messages(
    llm: AsyncLLM, template: str | None, body: ChatTemplateFields
) -> list[dict[str, Any]]:
    known = template or str(getattr(llm.tokenizer, "chat_template", "") or "")
    # a template that has not heard of developers would drop what they say
    renames = {} if "developer" in known else {"developer": "system"}
    return [
        _message(place, message, renames.get(message.role, message.role))
        for place, message in enumerate(body.messages)
    ]


def _message(place: int, message: Message, role: str) -> dict[str, Any]:
    flat: dict[str, Any] = {"role": role, "content": _content(place, message)}
    for name in ("name", "tool_call_id", "reasoning_content"):
        value = getattr(message, name)
        if value is not None:
            flat[name] = value
    if message.tool_calls:
        calls = enumerate(message.tool_calls)
        flat["tool_calls"] = [_call(f"messages.{place}.tool_calls.{i}", call) for i, call in calls]
    return flat


def _content(place: int, message: Message) -> str:
    content = message.content
    if content is None and message.role != "assistant":
        name = f"messages.{place}.content"
        raise ApiError(400, f"{name} is missing: a {message.role} message needs text", name)
    if not isinstance(content, list):
        return content or ""
    for i, part in enumerate(content):
        if part.type != "text" or part.text is None:
            name = f"messages.{place}.content.{i}"
            what = f"of type {part.type[:100]!r}" if part.type != "text" else "without text"
            raise ApiError(400, f"{name} {what} is not supported: the models read text only", name)
    return "\n".join(part.text or "" for part in content)


def _call(name: str, call: ToolCall) -> dict[str, Any]:
    """A call whose arguments are an object, as most templates want it."""
    text = call.function.arguments or "{}"
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        name = f"{name}.function.arguments"
        raise ApiError(400, f"{name} must be a JSON object as text", name)
    function = {"name": call.function.name, "arguments": arguments}
    given = {} if call.id is None else {"id": call.id}
    return given | {"type": call.type, "function": function}
