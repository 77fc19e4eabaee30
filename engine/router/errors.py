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
    413: "RequestTooLargeError",
    429: "RateLimitError",
    502: "BadGatewayError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
}


class RouterError(Exception):
    """A request that ends with an error of the router's own.

    Args:
        status: Of the HTTP answer.
        message: For the client; one line.
        kind: OpenAI's `type`; None: the usual one of the status.
        param: The parameter that is wrong.
        code: None: the status.
        retry_after_s: When to try again.
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
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind or TYPES.get(status, "InternalServerError")
        self.param = param
        self.code = status if code is None else code
        self.retry_after_s = retry_after_s

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
