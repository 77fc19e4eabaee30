"""The tool parsers by the names that vLLM's --tool-call-parser takes."""

from engine.server.tools.hermes import HermesParser
from engine.server.tools.json_calls import Llama3JsonParser
from engine.server.tools.mistral import MistralParser
from engine.server.tools.parser import ToolParser
from engine.server.tools.pythonic import PythonicParser
from workbench.errors import ConfigError

TOOL_PARSERS: dict[str, type[ToolParser]] = {
    "hermes": HermesParser,
    "llama3_json": Llama3JsonParser,
    "mistral": MistralParser,
    "pythonic": PythonicParser,
}


def tool_parser(name: str) -> ToolParser:
    """The parser of that name.

    Raises:
        ConfigError: There is none.
    """
    parser = TOOL_PARSERS.get(name)
    if parser is None:
        raise ConfigError(
            f"tool_call_parser={name!r} is not known: choose one of {', '.join(TOOL_PARSERS)}"
        )
    return parser()
