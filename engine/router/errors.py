"""Errors that a client is told of, in OpenAI's form.

Knows the form of the body and Retry-After, and nothing of why something went wrong.
"""

import json
from math import ceil
from typing import Any

TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    413: "RequestTooLargeError",
    429: "RateLimitError",
    431: "RequestTooLargeError",
    502: "BadGatewayError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
}
SHORTAGE_RETRY_AFTER_S = 1.0


class RouterError(Exception):
    """A request that ends with an error of the router's own.

    Args:
        status: Of the HTTP answer.
        message: For the client; one line.
        kind: OpenAI's `type`; None: the usual one of the status.
        param: The parameter that is wrong.
        code: None: the status.
        retry_after_s: When to try again.
        closes: The client's connection is closed behind the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str | None = None,
        *,
        param: str | None = None,
        code: str | int | None = None,
        retry_after_s: float | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        usual = "BadRequestError" if status < 500 else "InternalServerError"
        self.kind = kind or TYPES.get(status, usual)
        self.param = param
        self.code = status if code is None else code
        self.retry_after_s = retry_after_s
        self.closes = closes

    @property
    def body(self) -> bytes:
        """JSON."""
        error: dict[str, Any] = {
            "message": str(self),
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}).encode()

    @property
    def event(self) -> bytes:
        """The end of a stream of server-sent events that was broken off."""
        return b"data: " + self.body + b"\n\ndata: [DONE]\n\n"

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After in whole seconds, where there is one."""
        if self.retry_after_s is None:
            return {}
        return {"Retry-After": str(max(1, ceil(self.retry_after_s)))}


def out_of_files() -> RouterError:
    """The router could not open a connection; its log says why. Closing the client's frees one."""
    return RouterError(
        503, "the router has too many connections open: try again later",
        retry_after_s=SHORTAGE_RETRY_AFTER_S, closes=True,
    )  # fmt: skip
