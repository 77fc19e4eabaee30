"""Tool calls in the answers of the model families, whole or as they stream.

`parser_for` says how to read an answer, `constraint_for` to which form to hold the model.
"""

from engine.server.tools.choice import constraint_for, parser_for
from engine.server.tools.families import TOOL_PARSERS, tool_parser
from engine.server.tools.parser import (
    CallDelta,
    Delta,
    ParsedAnswer,
    ToolCall,
    ToolParser,
    ToolStream,
)

__all__ = [
    "TOOL_PARSERS",
    "CallDelta",
    "Delta",
    "ParsedAnswer",
    "ToolCall",
    "ToolParser",
    "ToolStream",
    "constraint_for",
    "parser_for",
    "tool_parser",
]
