"""What every schema shares: numbers that fit a machine word, fields nobody knows are ignored."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_INT64 = 2**63 - 1

Int64 = Annotated[int, Field(ge=-MAX_INT64 - 1, le=MAX_INT64)]
"""Whole numbers that every part of an engine can hold."""
Number = Annotated[float, Field(allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=MAX_INT64)]
"""Of tokens or answers."""
Answers = Annotated[int, Field(ge=1, le=MAX_INT64)]
CountOrAll = Annotated[int, Field(ge=-1, le=MAX_INT64)]
"""-1 means all."""
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]


class RequestSchema(BaseModel):
    """Base of requests: unknown fields are accepted and ignored, as OpenAI's clients need."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class AnswerSchema(BaseModel):
    """Base of answers, which document what is written elsewhere."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
