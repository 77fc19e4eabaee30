"""Errors as OpenAI's clients read them: {"error": {message, type, param, code}}.

Knows which status an error of the workbench has; knows no endpoint.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from engine.errors import EngineDeadError, InputError
from workbench.errors import ConfigError, WorkbenchError
from workbench.sampling_params import SamplingParams

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARS = 1000
"""Longest message: one that quotes a client's megabytes must not send them back."""

_LEADING_NAME = re.compile(
    r"([a-z_]+)(?:\[[^\]]*\]|\.[a-z_]+)?(?:=|: | holds | has | needs | is | does not )"
)

_PARAMETERS = frozenset(SamplingParams.__dataclass_fields__) | {"tool_choice", "tools"}

TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    409: "ConflictError",
    413: "RequestTooLargeError",
    415: "UnsupportedMediaTypeError",
    429: "RateLimitError",
    431: "RequestTooLargeError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        message: For a person, in one line.
        param: The field of the request that is to blame.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.headers = dict(headers or {})


def error_body(error: ApiError) -> bytes:
    """The JSON of an error."""
    message = error.message
    if len(message) > MAX_MESSAGE_CHARS:
        message = message[:MAX_MESSAGE_CHARS] + " …"
    # what a client sent may hold half a surrogate pair, which is no UTF-8
    message = message.encode("utf-8", "backslashreplace").decode("utf-8")
    kind = TYPES.get(error.status, "BadRequestError" if error.status < 500 else TYPES[500])
    content = {"message": message, "type": kind, "param": error.param, "code": error.status}
    return msgspec.json.encode({"error": content})


def error_response(error: ApiError) -> Response:
    """The HTTP answer of an error."""
    return Response(error_body(error), error.status, error.headers, "application/json")


def as_api_error(error: Exception, retry_after: int = 1) -> ApiError:
    """The answer that an exception deserves; what nobody foresaw is a 500 without details."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineDeadError):
        return unavailable(str(error), retry_after)
    if isinstance(error, InputError | ConfigError):
        return ApiError(400, str(error), param_of(str(error)))
    if isinstance(error, WorkbenchError):
        return ApiError(400, str(error))
    return ApiError(500, "the server failed at this request; its log says why")


def unavailable(reason: str, retry_after: int, *, close: bool = False) -> ApiError:
    """503: another try may succeed, after so many seconds."""
    headers = {"Retry-After": str(retry_after)} | ({"Connection": "close"} if close else {})
    return ApiError(503, reason, headers=headers)


def param_of(message: str) -> str | None:
    """The parameter that a message of the workbench begins with, as in "top_p=2 must be …"."""
    if message.startswith("the prompt "):
        return "prompt"
    found = _LEADING_NAME.match(message)
    return found[1] if found and found[1] in _PARAMETERS else None


def install_error_handlers(app: FastAPI, retry_after: int) -> None:
    """Give every error of an app this form."""

    async def known(request: Request, error: Exception) -> Response:
        return error_response(as_api_error(error, retry_after))

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return error_response(_of_http(request, error))

    async def of_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first: dict[str, Any] = dict(error.errors()[0])
        param = ".".join(str(part) for part in first["loc"][1:])
        return error_response(ApiError(400, f"{param}: {first['msg']}", param or None))

    app.add_exception_handler(ApiError, known)
    app.add_exception_handler(WorkbenchError, known)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(Exception, known)


def _of_http(request: Request, error: HTTPException) -> ApiError:
    if error.status_code == 404 and error.detail == "Not Found":
        message = f"there is no {request.method} {request.url.path!r} here: see /openapi.json"
    elif error.status_code == 405:
        message = f"{request.url.path!r} does not take {request.method}: see the Allow header"
    else:
        message = str(error.detail)
    return ApiError(error.status_code, message, headers=error.headers)
