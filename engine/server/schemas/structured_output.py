"""How a request says what form its answer must have."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from engine.server.schemas.base import RequestSchema

JsonObject = dict[str, Any]
Choices = Annotated[list[str], Field(min_length=1, max_length=10_000)]


class JsonSchemaFormat(RequestSchema):
    """The schema of a response_format of type json_schema."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    name: str
    description: str | None = None
    json_schema: JsonObject | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(RequestSchema):
    """OpenAI's response_format."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(RequestSchema):
    """vLLM's structured_outputs: at most one constraint."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    json_: str | JsonObject | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | JsonObject | None = None
    disable_any_whitespace: bool | None = None
    disable_additional_properties: bool | None = None
    whitespace_pattern: str | None = None
    wrap_up: bool | None = None
