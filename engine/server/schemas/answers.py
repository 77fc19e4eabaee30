"""Parts of answers that several endpoints share, and the answers of the small endpoints."""

from typing import Any, Literal

from engine.server.schemas.base import AnswerSchema


class ErrorInfo(AnswerSchema):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: int


class ErrorResponse(AnswerSchema):
    """OpenAI's form of an error."""

    error: ErrorInfo


class CachedTokens(AnswerSchema):
    """Prompt tokens that the prefix cache held."""

    cached_tokens: int


class Usage(AnswerSchema):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: CachedTokens | None
    completion_tokens_details: None


class PromptLogprob(AnswerSchema):
    """Log probability of one token in a place of the prompt."""

    logprob: float
    rank: int | None
    decoded_token: str | None


PromptLogprobs = list[dict[str, PromptLogprob] | None]
"""By place: None for the first token, then by token id."""


class ModelCard(AnswerSchema):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: None
    max_model_len: int
    permission: list[Any]


class ModelList(AnswerSchema):
    """All names of the model."""

    object: Literal["list"]
    data: list[ModelCard]


class Version(AnswerSchema):
    """The program's version."""

    version: str


class Readiness(AnswerSchema):
    """The server takes requests."""

    status: Literal["ready"]


class Load(AnswerSchema):
    """How busy the server is."""

    server_load: int
    num_running: int
    num_waiting: int
    num_outstanding_tokens: int
    kv_cache_usage: float
    is_draining: bool
    world: str


class PrefixCacheReset(AnswerSchema):
    """Whether the cached prefixes were forgotten: not while requests are unfinished."""

    is_reset: bool


class TokenizeResponse(AnswerSchema):
    """The tokens of a prompt."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeResponse(AnswerSchema):
    """The text of tokens."""

    prompt: str
