"""/tokenize and /detokenize.

Knows the two endpoints; the tokenizer is the engine's.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from pydantic import Discriminator, RootModel, Tag
from starlette.requests import Request
from starlette.responses import Response

from engine.server.body import LARGE, off_loop, read_json
from engine.server.chat_prompt import render_chat
from engine.server.context import ServerContext
from engine.server.disconnect import while_connected
from engine.server.errors import ApiError
from engine.server.schemas.tokenization import (
    TOKEN_IDS,
    DetokenizeRequest,
    TokenizeChatRequest,
    TokenizeCompletionRequest,
)
from engine.token_ids import first_outside


def _kind(body: Any) -> str:
    return "chat" if isinstance(body, dict) and "messages" in body else "completion"


TextOrChat = Annotated[
    Annotated[TokenizeChatRequest, Tag("chat")]
    | Annotated[TokenizeCompletionRequest, Tag("completion")],
    Discriminator(_kind),
]


class TokenizeRequest(RootModel[TextOrChat]):
    """A text, or a conversation where there are messages."""


class Tokenization:
    """The endpoints.

    Args:
        context: The server.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def tokenize(self, request: Request) -> Response:
        """Token ids of a text, or of a conversation as its prompt would be."""
        limit = self._context.settings.max_body_bytes
        body = (await read_json(request, TokenizeRequest, limit)).root
        self._context.check_model(body.model or None)
        return await while_connected(request.receive, self._tokenize(body))

    async def detokenize(self, request: Request) -> Response:
        """The text of token ids."""
        context = self._context
        limit = context.settings.max_body_bytes
        body = await read_json(request, DetokenizeRequest, limit, "tokens", TOKEN_IDS)
        context.check_model(body.model or None)
        vocab_size = context.llm.info.vocab_size
        wrong = await off_loop(len(body.tokens), first_outside, body.tokens, vocab_size)
        if wrong is not None:
            raise ApiError(
                400,
                f"tokens holds {wrong}, outside the model's vocabulary of {vocab_size}: use ids "
                f"from 0 to {vocab_size - 1}",
                "tokens",
            )
        text = await while_connected(request.receive, context.llm.detokenize(body.tokens))
        return await off_loop(len(text), _text_answer, text)

    async def _tokenize(self, body: TokenizeChatRequest | TokenizeCompletionRequest) -> Response:
        context = self._context
        if isinstance(body, TokenizeChatRequest):
            text = await render_chat(context.llm, context.settings, body)
        else:
            text = body.prompt
        token_ids = await context.llm.tokenize(text, bool(body.add_special_tokens))
        return await off_loop(len(token_ids), self._answer, token_ids, bool(body.return_token_strs))

    def _answer(self, token_ids: Sequence[int], with_strings: bool) -> Response:
        content = {
            "count": len(token_ids),
            "max_model_len": self._context.llm.info.max_model_len,
            "tokens": token_ids,
            "token_strs": self._strings(token_ids) if with_strings else None,
        }
        return _json(content)

    def _strings(self, token_ids: Sequence[int]) -> list[str]:
        tokenizer = self._context.llm.tokenizer
        return [str(token) for token in tokenizer.convert_ids_to_tokens(list(token_ids))]


def _text_answer(text: str) -> Response:
    """As `_json({"prompt": text})`, and others get their turn while a long text is written."""
    parts = [text[start : start + LARGE] for start in range(0, len(text), LARGE)]
    written = [msgspec.json.encode(part)[1:-1] for part in parts]
    return Response(b'{"prompt":"%s"}' % b"".join(written), media_type="application/json")


def _json(content: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
