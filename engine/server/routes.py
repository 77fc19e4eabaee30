"""Which path leads where, and what is documented of it.

Knows the endpoints by name; what they do, they know.
"""

from fastapi import APIRouter, Response

from engine.server.chat import ChatCompletions
from engine.server.completions import Completions
from engine.server.context import ServerContext
from engine.server.health import Health
from engine.server.openapi import (
    WORK,
    DocumentedApp,
    Responses,
    errors,
    json_answer,
    json_body,
    json_or_stream,
)
from engine.server.schemas import answers
from engine.server.schemas.chat import ChatCompletionRequest, ChatCompletionResponse
from engine.server.schemas.completion import CompletionRequest, CompletionResponse
from engine.server.schemas.tokenization import DetokenizeRequest
from engine.server.tokenization import Tokenization, TokenizeRequest

SCHEMAS = (
    *(CompletionRequest, CompletionResponse, ChatCompletionRequest, ChatCompletionResponse),
    *(TokenizeRequest, answers.TokenizeResponse, DetokenizeRequest, answers.DetokenizeResponse),
    *(answers.ModelList, answers.ModelCard, answers.Version, answers.Readiness, answers.Load),
    answers.PrefixCacheReset,
)

MODEL_ID = {"name": "model_id", "in": "path", "required": True, "schema": {"type": "string"}}


def install_routes(app: DocumentedApp, context: ServerContext) -> None:
    """Give an app all endpoints of the server, and the document that tells of them."""
    _install_work(app.router, context)
    _install_health(app.router, context)
    app.schemas = SCHEMAS


def _install_work(router: APIRouter, context: ServerContext) -> None:
    completions, chats = Completions(context), ChatCompletions(context)
    tokenization = Tokenization(context)
    router.add_api_route(
        "/v1/completions",
        completions.create,
        methods=["POST"],
        responses=json_or_stream(CompletionResponse) | errors(*WORK),
        openapi_extra=json_body(CompletionRequest),
    )
    router.add_api_route(
        "/v1/chat/completions",
        chats.create,
        methods=["POST"],
        responses=json_or_stream(ChatCompletionResponse) | errors(*WORK),
        openapi_extra=json_body(ChatCompletionRequest),
    )
    router.add_api_route(
        "/tokenize",
        tokenization.tokenize,
        methods=["POST"],
        responses=json_answer(answers.TokenizeResponse) | errors(*WORK),
        openapi_extra=json_body(TokenizeRequest),
    )
    router.add_api_route(
        "/detokenize",
        tokenization.detokenize,
        methods=["POST"],
        responses=json_answer(answers.DetokenizeResponse) | errors(*WORK),
        openapi_extra=json_body(DetokenizeRequest),
    )


def _install_health(router: APIRouter, context: ServerContext) -> None:
    health = Health(context)
    alive: Responses = errors(500, 503)
    alive[200] = {"description": "It lives."}
    for path, method in (("/health", "GET"), ("/ping", "GET"), ("/ping", "POST")):
        router.add_api_route(
            path,
            health.health,
            methods=[method],
            responses=alive,
            # without it the document would promise JSON
            response_class=Response,
            operation_id=f"{path[1:]}_{method.lower()}",
        )
    for path, endpoint, schema, statuses in (
        ("/ready", health.ready, answers.Readiness, (500, 503)),
        ("/version", health.version, answers.Version, (500,)),
        ("/load", health.load, answers.Load, (500,)),
        ("/v1/models", health.models, answers.ModelList, (401, 500)),
    ):
        router.add_api_route(
            path, endpoint, methods=["GET"], responses=json_answer(schema) | errors(*statuses)
        )
    router.add_api_route(
        "/v1/models/{model_id:path}",
        health.model,
        methods=["GET"],
        responses=json_answer(answers.ModelCard) | errors(401, 404, 500),
        openapi_extra={"parameters": [MODEL_ID]},
    )
    router.add_api_route(
        "/reset_prefix_cache",
        health.reset_prefix_cache,
        methods=["POST"],
        responses=json_answer(answers.PrefixCacheReset) | errors(401, 500, 503),
    )
