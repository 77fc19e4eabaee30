"""/v1/chat/completions: what clients send and what they get."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictStr

from engine.server.schemas.answers import PromptLogprobs, Usage
from engine.server.schemas.base import Answers, AnswerSchema, Count, CountOrAll, RequestSchema
from engine.server.schemas.sampling import SamplingFields

MAX_MESSAGES = 16_384
MAX_TOOLS = 1024
FunctionName = Annotated[str, Field(min_length=1, max_length=256)]


class FunctionCall(RequestSchema):
    """The call of a function; arguments are JSON as text."""

    name: str
    arguments: str | None = None


class ToolCall(RequestSchema):
    """A call that the assistant made earlier."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class TextPart(RequestSchema):
    """A piece of a message's content; other types than text are refused by name."""

    type: str
    text: StrictStr | None = None


Parts = Annotated[list[TextPart], Field(max_length=MAX_MESSAGES)]


class Message(RequestSchema):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: StrictStr | Parts | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class FunctionDefinition(RequestSchema):
    """A function that the model may call; parameters are a JSON schema."""

    model_config = ConfigDict(extra="allow")

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(RequestSchema):
    """A tool."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"] = "function"
    function: FunctionDefinition


class NamedFunction(RequestSchema):
    """The function that must be called."""

    name: FunctionName


class NamedToolChoice(RequestSchema):
    """The tool that must be called."""

    type: Literal["function"] = "function"
    function: NamedFunction


class ChatTemplateFields(RequestSchema):
    """What makes a prompt of a conversation."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    add_generation_prompt: bool | None = True
    continue_final_message: bool | None = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class ChatCompletionRequest(ChatTemplateFields, SamplingFields):
    """A conversation to continue."""

    logprobs: bool | None = False
    top_logprobs: CountOrAll | None = 0
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Answers | None = 1
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = True
    reasoning_effort: str | None = None
    documents: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = False
    echo: bool | None = False
    return_prompt_text: bool | None = False

    mm_processor_kwargs: Any = None
    media_io_kwargs: Any = None
    modalities: Any = None
    audio: Any = None
    functions: Any = None
    function_call: Any = None
    web_search_options: Any = None


class CalledFunction(AnswerSchema):
    """The call of a function; arguments are JSON as text."""

    name: str
    arguments: str


class CalledTool(AnswerSchema):
    """A call that the model makes."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(RequestSchema):
    """The model's message; `tool_calls` only where it calls tools."""

    model_config = ConfigDict(extra="forbid")

    role: str
    content: str | None
    refusal: None
    annotations: None
    audio: None
    function_call: None
    tool_calls: list[CalledTool] | None = None
    reasoning: None


class TopLogprob(AnswerSchema):
    """A likely token."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(AnswerSchema):
    """A token of the answer and what else was likely in its place."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(AnswerSchema):
    """Log probabilities of the tokens of an answer."""

    content: list[TokenLogprob]


class ChatChoice(AnswerSchema):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "abort", "tool_calls"] | None
    stop_reason: int | str | None
    token_ids: list[int] | None
    routed_experts: None = Field(description="Always null; vLLM's clients look for it.")


class ChatCompletionResponse(AnswerSchema):
    """All answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    service_tier: None
    system_fingerprint: str
    usage: Usage
    prompt_logprobs: PromptLogprobs | None
    prompt_token_ids: list[int] | None
    prompt_text: str | None
    kv_transfer_params: None
    ec_transfer_params: None
    metrics: None
