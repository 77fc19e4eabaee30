"""The OpenAPI document: every request, every answer, every status that can come.

Knows schemas and statuses; endpoints are named in `routes`.
"""

from collections.abc import Sequence
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from engine.server.schemas.answers import ErrorResponse

Responses = dict[int | str, dict[str, Any]]

STATUSES = {
    400: "The request is malformed, or asks for what cannot be honoured.",
    401: "The API key is missing or wrong.",
    404: "There is no such model.",
    413: "The body is too long.",
    415: "The body is not application/json.",
    500: "The server or its engine failed.",
    503: "The server drains, its engine is dead, or its queue is full: see Retry-After.",
}
WORK = (400, 401, 404, 413, 415, 500, 503)
"""What endpoints answer that read a body."""

REF = "#/components/schemas/{model}"


def errors(*statuses: int) -> Responses:
    """The documented errors of an endpoint."""
    return {status: _error(status) for status in statuses}


def json_answer(schema: type[BaseModel]) -> Responses:
    """The documented success of an endpoint."""
    return {200: {"description": "Done.", "content": _json(schema)}}


def json_or_stream(schema: type[BaseModel]) -> Responses:
    """Likewise, of one that streams where it is asked to."""
    # events have no schema of their own in OpenAPI 3.1
    stream: dict[str, Any] = {"text/event-stream": {}}
    return {
        200: {
            "description": "All at once, or with stream=true events.",
            "content": _json(schema) | stream,
        }
    }


def json_body(schema: type[BaseModel]) -> dict[str, Any]:
    """The documented body of an endpoint that reads it by itself."""
    return {"requestBody": {"required": True, "content": _json(schema)}}


class DocumentedApp(FastAPI):
    """An app whose document holds schemas that its routes refer to by name.

    Attributes:
        schemas: Those.
    """

    schemas: Sequence[type[BaseModel]] = ()

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            made = get_openapi(
                title=self.title,
                version=self.version,
                description=self.description,
                routes=self.routes,
                servers=self.servers or None,
            )
            found = made.setdefault("components", {}).setdefault("schemas", {})
            found |= _definitions([*self.schemas, ErrorResponse])
            self.openapi_schema = made
        return self.openapi_schema


def _definitions(schemas: Sequence[type[BaseModel]]) -> dict[str, Any]:
    modes: list[tuple[type[BaseModel], Literal["validation", "serialization"]]]
    modes = [(schema, "validation") for schema in schemas]
    _, definitions = models_json_schema(modes, ref_template=REF)
    found: dict[str, Any] = definitions["$defs"]
    return found


def _error(status: int) -> dict[str, Any]:
    headers = {}
    if status == 503:
        headers = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    content = {"description": STATUSES[status], "content": _json(ErrorResponse)}
    return content | ({"headers": headers} if headers else {})


def _json(schema: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REF.format(model=schema.__name__)}}}
