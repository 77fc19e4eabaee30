"""/v1/completions: what clients send and what they get."""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from engine.server.schemas.answers import PromptLogprobs, Usage
from engine.server.schemas.base import Answers, AnswerSchema, Count, CountOrAll
from engine.server.schemas.sampling import SamplingFields

_TOKEN_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_PROMPT_SCHEMA = {
    "title": "Prompt",
    "description": "Text, token ids, or a list of either.",
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
        _TOKEN_IDS,
        {"type": "array", "items": _TOKEN_IDS, "minItems": 1},
    ],
}


class CompletionRequest(SamplingFields):
    """A prompt to continue."""

    # its form is checked in `prompts`: a union would be tried four times over megabytes
    prompt: Annotated[Any, WithJsonSchema(_PROMPT_SCHEMA)] = None
    best_of: Answers | None = None
    echo: bool | None = False
    logprobs: CountOrAll | None = None
    max_tokens: Count | None = 16
    n: Answers | None = 1
    add_special_tokens: bool | None = True

    suffix: str | None = None
    prompt_embeds: Any = None


class CompletionLogprobs(AnswerSchema):
    """Log probabilities of the tokens of an answer, position by position."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class CompletionChoice(AnswerSchema):
    """One answer."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length", "abort"] | None
    stop_reason: int | str | None
    token_ids: list[int] | None
    prompt_logprobs: PromptLogprobs | None
    prompt_token_ids: list[int] | None
    routed_experts: None = Field(description="Always null; vLLM's clients look for it.")


class CompletionResponse(AnswerSchema):
    """All answers to the prompts of a request."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    service_tier: None
    system_fingerprint: str
    usage: Usage
    kv_transfer_params: None
    ec_transfer_params: None
    metrics: None
