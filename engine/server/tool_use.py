"""What a chat's tools mean for its answer: the form it is held to, and how it is read.

Knows the server's switches; families of models and forms, `engine.server.tools` knows.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from engine.server.errors import ApiError
from engine.server.schemas.chat import ChatCompletionRequest, NamedToolChoice
from engine.server.settings import ServerSettings
from engine.server.tools import ToolParser, constraint_for, parser_for, tool_parser
from workbench.sampling_params import SamplingParams
from workbench.structured_outputs_params import StructuredOutputsParams


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of one chat.

    Attributes:
        constraint: The form that the answer is held to, or None.
        parser: Reads the calls in an answer; None: all of it is text.
        only_one: Calls after the first are left out.
    """

    constraint: StructuredOutputsParams | None = None
    parser: ToolParser | None = None
    only_one: bool = False

    def apply_to(self, params: SamplingParams) -> SamplingParams:
        """Sampling parameters that give such answers.

        Raises:
            ApiError: 400: the request wants another form as well.
        """
        changes: dict[str, Any] = {}
        if self.constraint is not None:
            if params.structured_outputs is not None:
                raise ApiError(
                    400,
                    "tool_choice and response_format or structured_outputs exclude each other: "
                    "keep one",
                    "tool_choice",
                )
            changes["structured_outputs"] = self.constraint
        if self.parser is not None and self.parser.needs_special_tokens:
            changes["skip_special_tokens"] = False
        return params.clone(**changes) if changes else params


def tool_use_of(body: ChatCompletionRequest, settings: ServerSettings) -> ToolUse:
    """How the tools of a chat are used.

    Raises:
        ApiError, InputError: The choice cannot be honoured.
    """
    choice: Any = body.tool_choice
    if isinstance(choice, NamedToolChoice):
        choice = choice.model_dump()
    if not body.tools and choice in (None, "none", "auto"):
        return ToolUse()
    if choice in (None, "auto") and not settings.enable_auto_tool_choice:
        raise ApiError(
            400,
            "tool_choice='auto' is not enabled: start the server with --enable-auto-tool-choice "
            "and --tool-call-parser, or name a function, or set tool_choice='required' or 'none'",
            "tool_choice",
        )
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
    family = None
    if settings.tool_call_parser is not None:
        family = tool_parser(settings.tool_call_parser)
    only_one = body.parallel_tool_calls is False
    constraint = constraint_for(tools, choice)
    if constraint is not None and choice == "required" and only_one:
        constraint = replace(constraint, json=_of_one(constraint))
    return ToolUse(constraint, parser_for(tools, choice, family), only_one)


def _of_one(constraint: StructuredOutputsParams) -> str:
    return json.dumps(json.loads(str(constraint.json)) | {"maxItems": 1})
