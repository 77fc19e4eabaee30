"""/tokenize and /detokenize: what clients send."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from engine.server.schemas.base import RequestSchema, TokenId
from engine.server.schemas.chat import ChatTemplateFields


class TokenizeCompletionRequest(RequestSchema):
    """A text."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = True
    return_token_strs: bool | None = False


class TokenizeChatRequest(ChatTemplateFields):
    """A conversation, by the chat template."""

    model: str | None = None
    add_special_tokens: bool | None = False
    return_token_strs: bool | None = False


TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
TOKEN_IDS = TypeAdapter(TokenIds)


class DetokenizeRequest(RequestSchema):
    """Tokens."""

    model: str | None = None
    tokens: TokenIds
