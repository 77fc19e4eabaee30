"""What tool_choice means: the form to which an answer is held, and how it is read.

With "auto" the model decides and its family's parser reads. With "required" the answer is held to
a JSON list of calls, and with a named function to that function's arguments, whatever the family.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.errors import InputError
from engine.server.tools.json_calls import CallListParser
from engine.server.tools.parser import Delta, ToolParser, ToolStream
from workbench.structured_outputs_params import StructuredOutputsParams

Tools = Sequence[Mapping[str, Any]]
"""As in a request: [{"type": "function", "function": {"name", "parameters", …}}]."""
ToolChoice = str | Mapping[str, Any] | None
CHOICES = ("none", "auto", "required")


def constraint_for(tools: Tools | None, tool_choice: ToolChoice) -> StructuredOutputsParams | None:
    """The form of an answer that must call; None where the model may do as it likes.

    Args:
        tools: What the request offers.
        tool_choice: "none", "auto", "required", {"type": "function", "function": {"name": …}}, or
            None: "auto" with tools, "none" without.

    Raises:
        InputError: A choice that is none, or of a function that is not offered.
    """
    name = _named(tools, tool_choice)
    if name is not None:
        return StructuredOutputsParams(json=_schemas(tools)[name])
    if tool_choice != "required":
        return None
    return StructuredOutputsParams(json=_list_schema(_schemas(tools)))


def parser_for(
    tools: Tools | None, tool_choice: ToolChoice, family: ToolParser | None
) -> ToolParser | None:
    """How to read the answer; None: it is content.

    Args:
        tools, tool_choice: As in `constraint_for`.
        family: Of the model, where it may call by itself (--enable-auto-tool-choice).

    Raises:
        InputError: As in `constraint_for`.
    """
    name = _named(tools, tool_choice)
    if name is not None:
        return NamedCallParser(name, family)
    if tool_choice == "required":
        return RequiredCallsParser(family)
    return family if tools and tool_choice != "none" else None


class _OwnIds(ToolParser):
    """A parser whose calls have the ids of the model's family."""

    def __init__(self, family: ToolParser | None = None) -> None:
        self._family = family

    def new_id(self) -> str:
        return super().new_id() if self._family is None else self._family.new_id()


class RequiredCallsParser(_OwnIds, CallListParser):
    """Reads the list of calls that tool_choice="required" gives."""

    name = "required"


class NamedCallParser(_OwnIds):
    """Reads the arguments of the one function that the request has named."""

    name = "named"

    def __init__(self, function: str, family: ToolParser | None = None) -> None:
        super().__init__(family)
        self._function = function

    def stream(self) -> ToolStream:
        return _NamedStream(self.new_id, self._function)


class _NamedStream(ToolStream):
    def __init__(self, new_id: Callable[[], str], function: str) -> None:
        super().__init__(new_id)
        self._function = function

    def feed(self, text: str) -> list[Delta]:
        if not text:
            return []
        deltas: list[Delta] = [] if self.num_calls else [self.begin_call(self._function)]
        return [*deltas, self.more_arguments(text)]

    def finish(self) -> list[Delta]:
        return [] if self.num_calls else [self.begin_call(self._function)]


def _schemas(tools: Tools | None) -> dict[str, dict[str, Any]]:
    """The parameters of the functions on offer, by name."""
    schemas = {}
    for tool in tools or ():
        function = tool.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not name:
            raise InputError("a tool has no function with a name: give it function.name")
        schemas[name] = _object_schema(name, function)
    return schemas


def _object_schema(name: str, function: Any) -> dict[str, Any]:
    parameters = function.get("parameters")
    if parameters is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(parameters, Mapping):
        raise InputError(f"tool {name!r}: its parameters must be a JSON schema of an object")
    kind = parameters.get("type", "object")
    if kind != "object":
        raise InputError(
            f"tool {name!r}: its parameters are of type {kind!r}, and arguments are an object: "
            "describe one"
        )
    return {"type": "object"} | dict(parameters)


def _named(tools: Tools | None, tool_choice: ToolChoice) -> str | None:
    """The function that the choice names."""
    if tool_choice is None or isinstance(tool_choice, str):
        if tool_choice is not None and tool_choice not in CHOICES:
            raise InputError(
                f"tool_choice={tool_choice!r} must be one of {', '.join(CHOICES)}, or name a "
                "function"
            )
        if tool_choice == "required" and not tools:
            raise InputError("tool_choice='required' needs tools: pass at least one")
        return None
    function = tool_choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    known = list(_schemas(tools))
    if name not in known:
        offered = f"the tools are {', '.join(known)}" if known else "the request has no tools"
        raise InputError(f"tool_choice names the function {name!r}, and {offered}")
    return str(name)


def _list_schema(schemas: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A list of at least one call of these functions."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, "parameters": {"$ref": f"#/$defs/call_{i}"}},
            "required": ["name", "parameters"],
            "additionalProperties": False,
        }
        for i, name in enumerate(schemas)
    ]
    definitions = {
        f"call_{i}": _moved(parameters, f"#/$defs/call_{i}")
        for i, parameters in enumerate(schemas.values())
    }
    items = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {"type": "array", "minItems": 1, "items": items, "$defs": definitions}


def _moved(schema: Any, place: str) -> Any:
    """A schema as it must be written where it is not the root but stands at `place`."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    reference = moved.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = place + reference[1:]
    return moved
